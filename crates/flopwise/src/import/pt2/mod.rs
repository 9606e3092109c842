//! `.pt2` archives of `torch.export.save` -> [`Graph`].
//!
//! A zip file with the program as JSON; the weights beside it are not read, their sizes stand in
//! the JSON. Layouts: `serialized_exported_program.json` (PyTorch 2.5 and 2.6) and
//! `*/models/*.json` (later).
//!
//! Not here: what each operator is (`ops/`), so a new operator is added there; operators that hold
//! graphs (`control.rs`); names and ranges of symbols (`symbols.rs`).

mod call;
mod control;
mod expression;
mod ops;
mod schema;
mod symbols;
#[cfg(test)]
mod tests;
mod ties;

use crate::error::Error;
use crate::graph::{Builder, Dim, Graph, NewNode, Op, Role, SourceLine, TensorId, TensorType};
use call::Call;
use control::Place;
use flopwise_formats::Format;
use ops::{Lowered, Results};
use schema::{Argument, ExportedProgram, GraphJson, Metadata, NodeJson, WeightsConfig};
use std::borrow::Cow;
use std::collections::HashMap;
use std::io::{Cursor, Read};
use std::sync::Arc;
use symbols::Symbols;

/// The largest program read: one of 126 layers takes about 30 MB, and the JSON is held in memory.
const MAX_JSON_BYTES: u64 = 256 << 20;
/// Members of an archive; a real one has one per weight at most.
const MAX_MEMBERS: usize = 1_000_000;
/// Characters of a node's name that are kept; each of its parts repeats them.
const MAX_NAME: usize = 200;
/// Longer lines of source are not written by people.
const MAX_QUOTE: usize = 1000;
/// The path of what stands outside all modules.
const NO_MODULE: &str = "_empty_nn_module";

/// Reads a `.pt2` archive.
pub(super) fn import(name: &str, file: &[u8]) -> Result<Graph, Error> {
    let mut archive = open_archive(file)?;
    let Some(program_name) = find_member(&archive, is_program) else {
        return Err(Error::new("is a zip file without an exported program (models/model.json)")
            .remedy("write it with torch.export.save(torch.export.export(model, inputs), FILE)"));
    };
    let json = read_member(&mut archive, &program_name)?;
    let weights_json = match find_member(&archive, |m| m.ends_with("model_weights_config.json")) {
        Some(member) => Some((read_member(&mut archive, &member)?, member)),
        None => None,
    };
    let weights: Option<WeightsConfig> = match &weights_json {
        Some((json, member)) => {
            Some(serde_json::from_slice(json).map_err(|error| malformed(member, &error))?)
        }
        None => None,
    };
    read_program(name, &program_name, json, weights.as_ref())
}

/// Reads the program that is one member of a zip file.
pub(super) fn import_member(name: &str, file: &[u8], member: &str) -> Result<Graph, Error> {
    let json = read_member(&mut open_archive(file)?, member)?;
    read_program(name, member, json, None)
}

fn open_archive(file: &[u8]) -> Result<zip::ZipArchive<Cursor<&[u8]>>, Error> {
    // The archive starts at byte 0, as its first bytes said. Left to guess, the reader is misled by
    // the zip64 records that PyTorch writes: they can be as long as a member's header.
    let config = zip::read::Config { archive_offset: zip::read::ArchiveOffset::Known(0) };
    let archive = zip::ZipArchive::with_config(config, Cursor::new(file))
        .map_err(|error| Error::new(format!("is a damaged zip file: {error}")))?;
    if MAX_MEMBERS < archive.len() {
        return Err(Error::new(format!("holds {} members", archive.len())));
    }
    Ok(archive)
}

fn read_program(
    name: &str,
    member: &str,
    mut json: Vec<u8>,
    weights: Option<&WeightsConfig>,
) -> Result<Graph, Error> {
    null_bare_words(&mut json);
    let program: ExportedProgram =
        serde_json::from_slice(&json).map_err(|error| malformed(member, &error))?;
    Importer::new(name, &program, weights).run()
}

fn is_program(member: &str) -> bool {
    let is_json = member.ends_with(".json");
    let in_models = member.starts_with("models/") || member.contains("/models/");
    (is_json && in_models) || member.ends_with("serialized_exported_program.json")
}

fn find_member<R: Read + std::io::Seek>(
    archive: &zip::ZipArchive<R>,
    is_wanted: impl Fn(&str) -> bool,
) -> Option<String> {
    let names = archive.file_names().filter_map(Result::ok);
    // `model.json` before any other model of the archive, so that the choice does not hang on the
    // order of members.
    let mut wanted: Vec<String> =
        names.filter(|member| is_wanted(member)).map(|member| member.to_string()).collect();
    wanted.sort_by_key(|member| (!member.ends_with("/model.json"), member.clone()));
    wanted.into_iter().next()
}

fn malformed(member: &str, error: &serde_json::Error) -> Error {
    Error::new(format!("is not an exported program: {error}")).at(format!("member `{member}`"))
}

/// Inflates one member, at most [`MAX_JSON_BYTES`], whatever size its header claims.
fn read_member(
    archive: &mut zip::ZipArchive<Cursor<&[u8]>>,
    member: &str,
) -> Result<Vec<u8>, Error> {
    let place = || format!("member `{member}`");
    let file = archive
        .by_name(member)
        .map_err(|error| Error::new(format!("cannot be read: {error}")).at(place()))?;
    let mut bytes = Vec::new();
    file.take(MAX_JSON_BYTES + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| Error::new(format!("cannot be inflated: {error}")).at(place()))?;
    if MAX_JSON_BYTES < bytes.len() as u64 {
        let limit = MAX_JSON_BYTES >> 20;
        return Err(Error::new(format!("inflates to more than {limit} MiB, refused")).at(place()));
    }
    Ok(bytes)
}

/// PyTorch 2.5 writes an open upper bound as a bare `Infinity`, which is Python but not JSON. Such
/// words outside strings become `null`, blank-padded in place.
fn null_bare_words(json: &mut [u8]) {
    const WORDS: [&[u8]; 3] = [b"-Infinity", b"Infinity", b"NaN"];
    let (mut at, mut in_string) = (0, false);
    while at < json.len() {
        match (in_string, json[at]) {
            (true, b'\\') => at += 1,
            (_, b'"') => in_string = !in_string,
            (false, b'-' | b'I' | b'N') => {
                if let Some(word) = WORDS.iter().find(|word| json[at..].starts_with(word)) {
                    // `NaN` is shorter than `null`; a number serves where nothing is read.
                    let value: &[u8] = if word.len() < 4 { b"0" } else { b"null" };
                    json[at..at + word.len()].fill(b' ');
                    json[at..at + value.len()].copy_from_slice(value);
                    at += word.len() - 1;
                }
            }
            _ => {}
        }
        at += 1;
    }
}

/// PyTorch's dtype codes (schema.py, `ScalarType`).
fn format_of(dtype: i32) -> Option<Format> {
    Some(match dtype {
        1 => Format::UINT8,
        2 => Format::INT8,
        3 => Format::INT16,
        4 => Format::INT32,
        5 => Format::INT64,
        6 => Format::FP16,
        7 => Format::FP32,
        8 => Format::FP64,
        9 => Format::COMPLEX32,
        10 => Format::COMPLEX64,
        11 => Format::COMPLEX128,
        12 => Format::BOOL,
        13 => Format::BF16,
        28 => Format::UINT16,
        34 => Format::UINT32,
        35 => Format::UINT64,
        29 => Format::E4M3FN,
        30 => Format::E5M2,
        31 => Format::E4M3FNUZ,
        32 => Format::E5M2FNUZ,
        33 => Format::E8M0,
        _ => return None,
    })
}

struct Importer<'a> {
    program: &'a ExportedProgram<'a>,
    weights: Option<&'a WeightsConfig<'a>>,
    builder: Builder,
    symbols: Symbols<'a>,
    /// Modules and source files, each name held once.
    interned: HashMap<String, Arc<str>>,
    /// The innermost module of each stack of modules met.
    modules: HashMap<&'a str, Option<Arc<str>>>,
    n_assertions: usize,
    /// What stands before the names of nodes inside a branch or a loop.
    prefix: String,
    /// The module of the higher-order node around.
    around: Option<Arc<str>>,
    /// How often the nodes here run.
    repeat: Dim,
    /// How often the nodes around each `vmap` run.
    vmaps: Vec<Dim>,
}

impl<'a> Importer<'a> {
    fn new(
        name: &str,
        program: &'a ExportedProgram<'a>,
        weights: Option<&'a WeightsConfig<'a>>,
    ) -> Importer<'a> {
        Importer {
            program,
            weights,
            builder: Builder::new(name),
            symbols: Symbols::default(),
            interned: HashMap::new(),
            modules: HashMap::new(),
            n_assertions: 0,
            prefix: String::new(),
            around: None,
            repeat: Dim::ONE,
            vmaps: Vec::new(),
        }
    }

    fn run(mut self) -> Result<Graph, Error> {
        let graph = &self.program.graph_module.graph;
        self.builder.reserve(graph.nodes.len(), graph.tensor_values.len());
        let stored = self.stored_tensors();
        self.name_symbols(&stored);
        self.read_expressions(graph);
        let (mut tensors, inputs) = self.inputs(&stored)?;
        self.nodes(graph, &mut tensors, 0)?;
        let outputs = graph.outputs.iter().filter_map(|output| output.as_tensor());
        let outputs = outputs.filter_map(|output| tensors.get(&*output.name).copied()).collect();
        self.note_open_sizes();
        if 0 < self.n_assertions {
            let text =
                format!("{} run-time assertions of the file cost nothing", self.n_assertions);
            self.builder.note(text);
        }
        Ok(self.builder.finish(inputs, outputs))
    }

    /// Which graph inputs are weights: argument name -> role and full name.
    fn stored_tensors(&self) -> HashMap<&'a str, (Role, &'a str)> {
        let mut stored = HashMap::new();
        for spec in &self.program.graph_module.signature.input_specs {
            let kinds = [
                (&spec.parameter, Role::Parameter),
                (&spec.buffer, Role::Buffer),
                (&spec.tensor_constant, Role::Buffer),
            ];
            for (named, role) in kinds {
                if let Some(named) = named {
                    let full_name = named.full_name.as_deref().unwrap_or(&named.arg.name);
                    stored.insert(&*named.arg.name, (role, full_name));
                }
            }
        }
        stored
    }

    /// Adds weights and inputs. Weights that the archive keeps in one place (a tied head) become
    /// one tensor.
    fn inputs(
        &mut self,
        stored: &HashMap<&str, (Role, &str)>,
    ) -> Result<(HashMap<&'a str, TensorId>, Vec<TensorId>), Error> {
        let graph = &self.program.graph_module.graph;
        let ties =
            if self.weights.is_none() { ties::unused_twins(graph, stored) } else { Vec::new() };
        let mut tensors: HashMap<&str, TensorId> = HashMap::new();
        let mut by_storage: HashMap<&str, TensorId> = HashMap::new();
        let mut inputs = Vec::new();
        for input in graph.inputs.iter().filter_map(|input| input.as_tensor()) {
            let tensor_type = self.tensor_type(graph, &input.name);
            let Some((role, full_name)) = stored.get(&*input.name).copied() else {
                let id = self.builder.tensor(&input.name, tensor_type, Role::Input)?;
                tensors.insert(&input.name, id);
                inputs.push(id);
                continue;
            };
            if ties.contains(&&*input.name) {
                self.builder.note(format!(
                    "`{full_name}` is read by nothing and shaped like the tied embedding; it is \
                     taken for the same weight (the file does not say)"
                ));
                continue;
            }
            // From 2.9 the weights table says where each weight lies; up to 2.7 tied weights carry
            // one full name.
            let entry = self.weights.and_then(|weights| weights.config.get(full_name));
            let path = entry.map(|entry| &*entry.path_name).filter(|path| !path.is_empty());
            let storage = path.unwrap_or(full_name);
            let twin = by_storage.get(storage).copied();
            let is_twin = |id: &TensorId| self.builder.get(*id).tensor_type == tensor_type;
            let id = match twin.filter(is_twin) {
                Some(twin) => twin,
                None => self.builder.tensor(full_name, tensor_type, role)?,
            };
            by_storage.entry(storage).or_insert(id);
            tensors.insert(&input.name, id);
        }
        Ok((tensors, inputs))
    }

    fn nodes(
        &mut self,
        graph: &'a GraphJson<'a>,
        tensors: &mut HashMap<&'a str, TensorId>,
        depth: usize,
    ) -> Result<(), Error> {
        for (node_idx, node) in graph.nodes.iter().enumerate() {
            let name = format!("{}{}", self.prefix, node_name(node, node_idx));
            self.node(graph, node, &name, tensors, depth)
                .map_err(|error| error.at(format!("node `{name}`")))?;
        }
        Ok(())
    }

    fn node(
        &mut self,
        graph: &'a GraphJson<'a>,
        node: &'a NodeJson<'a>,
        name: &str,
        tensors: &mut HashMap<&'a str, TensorId>,
        depth: usize,
    ) -> Result<(), Error> {
        let mut place = Place { graph, node, name, tensors, depth };
        if self.higher_order(&mut place)? {
            return Ok(());
        }
        let outputs: Vec<(&'a str, Option<TensorType>)> = output_names(&node.outputs)
            .map(|output| (output, self.tensor_type(graph, output)))
            .collect();
        if outputs.is_empty() && is_free(node) {
            // Sizes and assertions: their values stand in the declared shapes.
            self.n_assertions += usize::from(node.target.contains("assert"));
            return Ok(());
        }
        for input in node.inputs.iter().flat_map(|argument| input_names(&argument.arg)) {
            if !tensors.contains_key(input) {
                let what = format!("reads `{input}`, which nothing before it makes");
                return Err(Error::new(what).remedy("the graph is cyclic or damaged"));
            }
        }
        self.meet_symbols(node, &outputs, tensors);
        let integer = |name: &str| graph.sym_int_values.get(name).and_then(|size| self.dim(size));
        let call = Call { node, tensors: &*tensors, outputs: &outputs, integer: &integer };
        let lowered = ops::lower(&call, &self.builder);
        let drops =
            call.operator().1.contains("dropout") && call.float("p").is_some_and(|p| 0.0 < p);
        let operands = call.all_tensors();
        let common = self.common_of(node, name);
        self.insert(lowered, common, operands, &outputs, tensors)?;
        if drops {
            self.builder.drops();
        }
        Ok(())
    }

    fn common_of(&mut self, node: &'a NodeJson<'a>, name: &str) -> Common {
        // A wrapper of another operator names it.
        let wrapped =
            node.inputs.iter().find_map(|argument| argument.arg.as_operator().map(|name| &**name));
        let operator = wrapped.unwrap_or(&node.target);
        let operator = operator.strip_prefix("torch.ops.").unwrap_or(operator);
        Common {
            name: name.to_owned(),
            operator: self.intern(operator),
            module: self.module(&node.metadata).or_else(|| self.around.clone()),
            line: self.source_line(&node.metadata),
            repeat: self.repeat.clone(),
        }
    }

    /// Inserts what a call was lowered to.
    fn insert(
        &mut self,
        lowered: Result<Lowered, String>,
        common: Common,
        operands: Vec<TensorId>,
        outputs: &[(&'a str, Option<TensorType>)],
        tensors: &mut HashMap<&'a str, TensorId>,
    ) -> Result<(), Error> {
        let declared =
            || outputs.iter().map(|(name, declared)| ((*name).to_owned(), declared.clone()));
        let lowered = match lowered {
            Ok(lowered) => lowered,
            Err(reason) => {
                let new = common.node("", Err(reason), operands, declared().collect());
                let ids = self.builder.insert(new)?;
                tensors.extend(outputs.iter().map(|(name, _)| *name).zip(ids));
                return Ok(());
            }
        };
        let mut made: Vec<Vec<TensorId>> = Vec::new();
        let (n_steps, is_last_named) =
            (lowered.steps.len(), matches!(lowered.results, Results::Last));
        for (step_idx, step) in lowered.steps.into_iter().enumerate() {
            let inputs = step.inputs.iter().map(|input| input.resolve(&made)).collect();
            let is_named = step_idx + 1 == n_steps && is_last_named;
            let named: Vec<_> = match is_named {
                true => declared().collect(),
                false => (0..step.n_outputs)
                    .map(|i| (format!("{}.{step_idx}.{i}", common.name), None))
                    .collect(),
            };
            let suffix = if is_named { String::new() } else { format!(".{step_idx}") };
            let mut new = common.node(&suffix, Ok(step.op), inputs, named);
            new.format = step.format;
            made.push(self.builder.insert(new)?);
        }
        let ids: Vec<TensorId> = match lowered.results {
            Results::Last => made.last().cloned().unwrap_or_default(),
            Results::Listed(results) => results.iter().map(|input| input.resolve(&made)).collect(),
            Results::Reshaped => {
                let last = made.last().cloned().unwrap_or_default();
                let mut ids = Vec::with_capacity(last.len());
                for (part, (name, declared)) in last.into_iter().zip(outputs) {
                    let Some(tensor_type) = declared.clone() else { continue };
                    let op = Op::Reshape { shape: tensor_type.shape.clone() };
                    let named = vec![((*name).to_owned(), Some(tensor_type))];
                    let new = common.node(&format!(".{name}"), Ok(op), vec![part], named);
                    ids.extend(self.builder.insert(new)?);
                }
                ids
            }
        };
        // What is used up between the steps never reaches memory; the last step's results do.
        let kept = made.last().cloned().unwrap_or_default();
        let inner = made.iter().flatten().filter(|id| !ids.contains(id) && !kept.contains(id));
        let inner: Vec<TensorId> = inner.copied().collect();
        self.builder.hide(&inner);
        tensors.extend(outputs.iter().map(|(name, _)| *name).zip(ids));
        Ok(())
    }

    fn intern(&mut self, text: &str) -> Arc<str> {
        if let Some(known) = self.interned.get(text) {
            return Arc::clone(known);
        }
        let interned: Arc<str> = Arc::from(text);
        self.interned.insert(text.to_owned(), Arc::clone(&interned));
        interned
    }

    /// The path of the innermost module; the classes of it and of those around it are kept. They
    /// are written `key,path,class;key,path,class`, outermost first.
    fn module(&mut self, metadata: &'a Metadata<'a>) -> Option<Arc<str>> {
        let stack = metadata.nn_module_stack.as_deref()?;
        if let Some(known) = self.modules.get(stack) {
            return known.clone();
        }
        let mut innermost = None;
        for module in stack.split(';') {
            let mut parts = module.splitn(3, ',').skip(1).map(str::trim);
            let path = parts.next().filter(|path| !path.starts_with(NO_MODULE));
            if let (Some(path), Some(class)) = (path, parts.next()) {
                let (path, class) = (self.intern(path), self.intern(class));
                self.builder.module(path, class);
            }
            innermost = path.filter(|path| !path.is_empty());
        }
        let innermost = innermost.map(|path| self.intern(path));
        self.modules.insert(stack, innermost.clone());
        innermost
    }

    /// The innermost frame outside PyTorch's own `torch/nn`, as users look for their own line; the
    /// source quoted below it is kept.
    fn source_line(&mut self, metadata: &Metadata) -> Option<SourceLine> {
        let trace = metadata.stack_trace?.get();
        let trace: Option<Cow<str>> = serde_json::from_str(trace).ok()?;
        let trace = trace.as_deref()?;
        let mut lines = trace.lines().peekable();
        let mut chosen = None;
        while let Some(line) = lines.next() {
            let Some((file, line)) = frame(line) else { continue };
            let is_library = file.contains("torch/nn/") || file.starts_with("torch/fx/");
            if !is_library || chosen.is_none() {
                let quoted = lines.peek().filter(|next| frame(next).is_none());
                chosen = Some((file, line, quoted.map(|text| text.trim())));
            }
        }
        let (file, line, quoted) = chosen?;
        let file = file.rsplit_once("-packages/").map_or(file, |(_, inside)| inside);
        let line = SourceLine { file: self.intern(file), line };
        if let Some(text) = quoted.filter(|text| !text.is_empty() && text.len() <= MAX_QUOTE) {
            self.builder.quote(line.clone(), text);
        }
        Some(line)
    }
}

/// `File "NAME", line N, in FUNCTION`.
fn frame(line: &str) -> Option<(&str, u32)> {
    let rest = line.trim_start().strip_prefix("File \"")?;
    let (file, rest) = rest.split_once("\", line ")?;
    let digits = rest.split(|c: char| !c.is_ascii_digit()).next()?;
    Some((file, digits.parse().ok()?))
}

/// What all nodes made from one call share.
struct Common {
    name: String,
    operator: Arc<str>,
    module: Option<Arc<str>>,
    line: Option<SourceLine>,
    repeat: Dim,
}

impl Common {
    fn node(
        &self,
        suffix: &str,
        op: Result<Op, String>,
        inputs: Vec<TensorId>,
        outputs: Vec<(String, Option<TensorType>)>,
    ) -> NewNode {
        NewNode {
            name: format!("{}{suffix}", self.name),
            op,
            inputs,
            outputs,
            operator: Arc::clone(&self.operator),
            module: self.module.clone(),
            line: self.line.clone(),
            repeat: self.repeat.clone(),
            in_place: is_in_place(&self.operator),
            format: None,
        }
    }
}

/// Names of in-place operators end with an underscore: `aten.relu_.default`.
fn is_in_place(operator: &str) -> bool {
    operator.split('.').nth(1).is_some_and(|name| name.ends_with('_') && !name.ends_with("__"))
}

/// Whether a node without results costs nothing: it reads no tensor, or only its sizes, or checks
/// something, or takes a single number out.
fn is_free(node: &NodeJson) -> bool {
    let target: &str = node.target.strip_prefix("torch.ops.").unwrap_or(&node.target);
    let is_own = target.strip_prefix("aten.").is_none_or(|aten| aten.starts_with("equal."));
    let reads = node.inputs.iter().any(|argument| input_names(&argument.arg).next().is_some());
    !is_own || !reads || target.contains("assert") || target.starts_with("higher_order.print")
}

fn node_name(node: &NodeJson, node_idx: usize) -> String {
    let output = || output_names(&node.outputs).next();
    match node.name.as_deref().or_else(output) {
        Some(name) if name.len() <= MAX_NAME => name.to_owned(),
        Some(name) => format!("{}{node_idx}", name.chars().take(MAX_NAME).collect::<String>()),
        None => format!("node{node_idx}"),
    }
}

/// The tensors an argument names.
fn input_names<'a>(argument: &'a Argument<'a>) -> impl Iterator<Item = &'a str> {
    let one = argument.as_tensor().into_iter();
    let many = argument.as_tensors().into_iter().flatten();
    let many = many.chain(argument.as_nested_tensors().into_iter().flatten().flatten());
    let optional = argument.as_optional_tensors().into_iter().flatten();
    let optional = optional.chain(argument.as_optional_tensor());
    let optional = optional.filter_map(|optional| optional.as_tensor.as_ref());
    one.chain(many).chain(optional).map(|tensor| &*tensor.name)
}

fn output_names<'a>(outputs: &'a [Argument<'a>]) -> impl Iterator<Item = &'a str> {
    outputs.iter().flat_map(input_names)
}

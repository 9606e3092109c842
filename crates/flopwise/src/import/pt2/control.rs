//! Higher-order operators: those that hold graphs. Branches, loops, and bodies that run as if they
//! stood outside; and the nesting of `vmap`, which is a loop without a graph.
//!
//! Not here: operators without graphs (`ops/`).
//! Source: torch/_higher_order_ops, PyTorch 2.5 to 2.15.

use super::schema::{GraphJson, NodeJson};
use super::{Common, Importer, input_names, output_names};
use crate::error::Error;
use crate::graph::{
    Attention, Choice, Dim, Mask, Op, ROUNDS, Range, Role, Shape, Storage, Symbol, TensorId,
    TensorType,
};
use flopwise_formats::Format;
use std::collections::HashMap;

/// Graphs inside graphs deeper than this are damage.
const MAX_GRAPH_DEPTH: usize = 16;
/// Characters that a higher-order node gives to the names of the nodes inside it.
const MAX_PREFIX: usize = 80;

/// Bodies that run once, just as they stand.
const TRANSPARENT: [&str; 13] = [
    "wrap_with_set_grad_enabled",
    "wrap_with_autocast",
    "wrap",
    "wrap_activation_checkpoint",
    "tag_activation_checkpoint",
    "checkpoint",
    "invoke_subgraph",
    "strict_mode",
    "hints_wrap",
    "invoke_quant",
    "invoke_quant_packed",
    "autograd_function_apply",
    "local_map_hop",
];

/// One higher-order node taken apart.
struct Parts<'a> {
    graphs: Vec<&'a GraphJson<'a>>,
    /// The tensors of each argument after the first graph.
    groups: Vec<Vec<&'a str>>,
    /// The first whole number after the first graph.
    number: Option<i64>,
}

impl<'a> Parts<'a> {
    fn of(node: &'a NodeJson<'a>) -> Parts<'a> {
        let graphs = node.inputs.iter().filter_map(|argument| argument.arg.as_graph());
        let graphs: Vec<_> = graphs.map(|argument| &argument.graph).collect();
        let arguments = node.inputs.iter().map(|argument| &argument.arg);
        let after = arguments.skip_while(|argument| argument.as_graph().is_none());
        let after: Vec<_> = after.filter(|argument| argument.as_graph().is_none()).collect();
        Parts {
            graphs,
            groups: after.iter().map(|argument| input_names(argument).collect()).collect(),
            number: after.iter().find_map(|argument| argument.as_int().copied()),
        }
    }

    fn graph(&self, place: usize, what: &str) -> Result<&'a GraphJson<'a>, Error> {
        let missing = || Error::new(format!("holds no graph for {what}"));
        self.graphs.get(place).copied().ok_or_else(missing)
    }

    /// Groups that are lists of tensors; a lone number or name is none of them.
    fn group(&self, place: usize) -> &[&'a str] {
        self.groups.get(place).map_or(&[], Vec::as_slice)
    }

    fn all(&self) -> Vec<&'a str> {
        self.groups.concat()
    }
}

/// Where a higher-order node stands.
pub(super) struct Place<'p, 'a> {
    pub(super) graph: &'a GraphJson<'a>,
    pub(super) node: &'a NodeJson<'a>,
    pub(super) name: &'p str,
    pub(super) tensors: &'p mut HashMap<&'a str, TensorId>,
    pub(super) depth: usize,
}

impl<'a> Importer<'a> {
    /// Whether the node was one of those above and is dealt with.
    pub(super) fn higher_order(&mut self, place: &mut Place<'_, 'a>) -> Result<bool, Error> {
        let target: &str = &place.node.target;
        let operator = target.strip_prefix("torch.ops.higher_order.");
        match operator.map(|operator| operator.split('.').next().unwrap_or(operator)) {
            Some("cond") => self.branches(place)?,
            Some("while_loop" | "while_loop_stack_output") => self.while_loop(place)?,
            Some("scan") => self.scan(place)?,
            Some("map_impl" | "map") => self.map(place)?,
            Some("associative_scan") => self.associative_scan(place)?,
            Some("flex_attention") => self.flex_attention(place)?,
            Some(operator) if TRANSPARENT.contains(&operator) => self.inline(place, operator)?,
            Some(_) => return Ok(false),
            None => {
                return match target.strip_prefix("torch._functorch.predispatch.") {
                    Some(operator) => self.vmap(place, operator),
                    None => Ok(false),
                };
            }
        }
        Ok(true)
    }

    fn operand(&self, place: &Place<'_, 'a>, name: &str) -> Result<TensorId, Error> {
        let found = place.tensors.get(name).copied();
        found.ok_or_else(|| Error::new(format!("reads `{name}`, which nothing before it makes")))
    }

    fn operands(&self, place: &Place<'_, 'a>, names: &[&str]) -> Result<Vec<TensorId>, Error> {
        names.iter().map(|name| self.operand(place, name)).collect()
    }

    /// Inserts the nodes of a graph, each `rounds` times as often as what stands around it, and
    /// returns its results.
    fn body(
        &mut self,
        place: &Place<'_, 'a>,
        graph: &'a GraphJson<'a>,
        operands: &[TensorId],
        label: &str,
        rounds: &Dim,
    ) -> Result<Vec<TensorId>, Error> {
        if MAX_GRAPH_DEPTH <= place.depth {
            return Err(Error::new(format!("nests graphs deeper than {MAX_GRAPH_DEPTH}")));
        }
        let mut inside: HashMap<&'a str, TensorId> = HashMap::new();
        let parameters = graph.inputs.iter().flat_map(input_names);
        inside.extend(parameters.zip(operands.iter().copied()));
        let prefix = match label {
            "" => self.prefix.clone(),
            _ => short(&format!("{}{label}.", place.name)),
        };
        let around = self.module(&place.node.metadata).or_else(|| self.around.clone());
        let outer = std::mem::replace(&mut self.prefix, prefix);
        let outer_module = std::mem::replace(&mut self.around, around);
        let repeat = &self.repeat * rounds;
        let outer_repeat = std::mem::replace(&mut self.repeat, repeat);
        self.nodes(graph, &mut inside, place.depth + 1)?;
        (self.prefix, self.around, self.repeat) = (outer, outer_module, outer_repeat);
        let results = output_names(&graph.outputs).map(|name| {
            let missing = || Error::new(format!("its result `{name}` is made by no node"));
            inside.get(name).copied().ok_or_else(missing)
        });
        results.collect()
    }

    /// A graph that computes just what its body does: its nodes take the place of the node.
    fn inline(&mut self, place: &mut Place<'_, 'a>, operator: &str) -> Result<(), Error> {
        let parts = Parts::of(place.node);
        let graph = parts.graph(0, "its body")?;
        // Modes keep the names of a program that is unique as a whole; a region that is called
        // several times does not.
        let is_mode = operator.starts_with("wrap_with_");
        let label = if is_mode { "" } else { ".body" };
        let operands = self.operands(place, &parts.all())?;
        let results = self.body(place, graph, &operands, label, &Dim::ONE)?;
        place.tensors.extend(output_names(&place.node.outputs).zip(results));
        Ok(())
    }

    fn common(&mut self, place: &Place<'_, 'a>) -> Common {
        self.common_of(place.node, place.name)
    }

    /// Inserts one node of the loop or choice itself.
    fn add(
        &mut self,
        common: &Common,
        suffix: &str,
        op: Op,
        inputs: Vec<TensorId>,
        output: (&str, Option<TensorType>),
    ) -> Result<TensorId, Error> {
        let outputs = vec![(output.0.to_owned(), output.1)];
        Ok(self.builder.insert(common.node(suffix, Ok(op), inputs, outputs))?[0])
    }

    /// Both branches, then a node per result that is one or the other.
    fn branches(&mut self, place: &mut Place<'_, 'a>) -> Result<(), Error> {
        let parts = Parts::of(place.node);
        let operands = self.operands(place, &parts.all())?;
        let mut ranges = Vec::new();
        let mut results = Vec::new();
        for (at, (branch, label)) in
            [("true_fn", ".true"), ("false_fn", ".false")].into_iter().enumerate()
        {
            let graph = parts.graph(at, &format!("its branch {branch}"))?;
            let first = self.builder.n_nodes();
            results.push(self.body(place, graph, &operands, label, &Dim::ONE)?);
            ranges.push((branch, first..self.builder.n_nodes()));
        }
        let common = self.common(place);
        self.builder.choice(Choice { name: place.name.to_owned(), branches: ranges });
        let outputs: Vec<&'a str> = output_names(&place.node.outputs).collect();
        if results.iter().any(|made| made.len() < outputs.len()) {
            return Err(Error::new("has more results than its branches"));
        }
        for (result_idx, output) in outputs.into_iter().enumerate() {
            let declared = self.tensor_type(place.graph, output);
            let mut either = Vec::new();
            for (branch_idx, made) in results.iter().enumerate() {
                let id = made[result_idx];
                // Of sizes that differ the file makes a new symbol.
                let (known, wanted) = (self.builder.get(id).tensor_type.clone(), declared.clone());
                either.push(match (known, wanted) {
                    (Some(known), Some(wanted)) if known.shape != wanted.shape => {
                        let op = Op::Restride { shape: wanted.shape.clone() };
                        let suffix = format!(".{output}.{branch_idx}");
                        self.add(&common, &suffix, op, vec![id], (output, Some(wanted)))?
                    }
                    _ => id,
                });
            }
            let suffix = format!(".{output}");
            let id = self.add(&common, &suffix, Op::Either, either, (output, declared))?;
            place.tensors.insert(output, id);
        }
        Ok(())
    }

    /// The body runs an open number of rounds, the condition once more.
    fn while_loop(&mut self, place: &mut Place<'_, 'a>) -> Result<(), Error> {
        let parts = Parts::of(place.node);
        let (condition, body) = (parts.graph(0, "its condition")?, parts.graph(1, "its body")?);
        let name = format!("{}{ROUNDS}", short(place.name));
        let rounds = Dim::symbol(&name);
        self.builder.symbol(Symbol {
            name,
            aliases: Vec::new(),
            min: 0,
            max: None,
            place: format!("rounds of the loop `{}`", short(place.name)),
            at_most: None,
        });
        let operands = self.operands(place, &parts.all())?;
        let tests = &rounds + &Dim::ONE;
        self.body(place, condition, &operands, ".condition", &tests)?;
        let results = self.body(place, body, &operands, ".body", &rounds)?;
        if place.node.target.contains("stack_output") {
            return self.stacked(place, &results, 0, &rounds);
        }
        self.builder.note(format!(
            "the loop `{}` runs as often as the data say; its counts are for one round, and a \
             lower bound, unless --bind says how many",
            short(place.name)
        ));
        place.tensors.extend(output_names(&place.node.outputs).zip(results));
        Ok(())
    }

    /// `scan(body, init, xs, additional)`; up to 2.6 an axis and a direction stand before the
    /// additional operands. Each round takes a slice of every `xs`.
    fn scan(&mut self, place: &mut Place<'_, 'a>) -> Result<(), Error> {
        let parts = Parts::of(place.node);
        let graph = parts.graph(0, "its body")?;
        let axis = usize::try_from(parts.number.unwrap_or(0)).unwrap_or(0);
        let carried = self.operands(place, parts.group(0))?;
        let over = self.operands(place, parts.group(1))?;
        let rest: Vec<&str> = parts.groups.iter().skip(2).flatten().copied().collect();
        let rest = self.operands(place, &rest)?;
        let rounds = self.length(over.first().copied(), axis)?;
        let slices = self.slices(place, &over, axis)?;
        let operands = [carried.clone(), slices, rest].concat();
        let results = self.body(place, graph, &operands, ".body", &rounds)?;
        self.stacked(place, &results, carried.len(), &rounds)
    }

    /// `map(body, xs, additional)`.
    fn map(&mut self, place: &mut Place<'_, 'a>) -> Result<(), Error> {
        let parts = Parts::of(place.node);
        let graph = parts.graph(0, "its body")?;
        let over = self.operands(place, parts.group(0))?;
        let rest: Vec<&str> = parts.groups.iter().skip(1).flatten().copied().collect();
        let rest = self.operands(place, &rest)?;
        let rounds = self.length(over.first().copied(), 0)?;
        let slices = self.slices(place, &over, 0)?;
        let operands = [slices, rest].concat();
        let results = self.body(place, graph, &operands, ".body", &rounds)?;
        self.stacked(place, &results, 0, &rounds)
    }

    /// `associative_scan(body, xs, additional)`: the body combines two slices (or, for a body over
    /// single elements, two elements). One after the other that are n - 1 rounds; kernels that run
    /// in parallel take up to twice as many.
    fn associative_scan(&mut self, place: &mut Place<'_, 'a>) -> Result<(), Error> {
        let parts = Parts::of(place.node);
        let graph = parts.graph(0, "its body")?;
        let over = self.operands(place, parts.group(0))?;
        let rest: Vec<&str> = parts.groups.iter().skip(1).flatten().copied().collect();
        let rest = self.operands(place, &rest)?;
        let length = self.length(over.first().copied(), 0)?;
        let parameter = graph.inputs.iter().flat_map(input_names).next();
        let parameter = parameter.and_then(|name| self.tensor_type(graph, name));
        let whole = over.first().and_then(|id| self.builder.get(*id).tensor_type.clone());
        let mut rounds = &length - &Dim::ONE;
        let mut slices = self.slices(place, &over, 0)?;
        if let (Some(parameter), Some(whole)) = (parameter, whole)
            && parameter.shape.rank() == 0
            && let Some(rows) = whole.shape.elements().exact_div(&length)
        {
            rounds = &rounds * &rows;
            slices = over.clone();
            for slice in &mut slices {
                let common = self.common(place);
                let op = Op::Restride { shape: Shape::default() };
                *slice = self.add(&common, ".element", op, vec![*slice], ("element", None))?;
            }
        }
        let operands = [slices.clone(), slices, rest].concat();
        let results = self.body(place, graph, &operands, ".body", &rounds)?;
        self.stacked(place, &results, 0, &rounds)
    }

    fn length(&self, id: Option<TensorId>, axis: usize) -> Result<Dim, Error> {
        let known = id.and_then(|id| self.builder.get(id).tensor_type.as_ref());
        let length = known.and_then(|known| known.shape.0.get(axis).cloned());
        length.ok_or_else(|| Error::new("loops over a tensor without a length"))
    }

    /// The first slice of each tensor along an axis, which goes: what one round sees.
    fn slices(
        &mut self,
        place: &Place<'_, 'a>,
        over: &[TensorId],
        axis: usize,
    ) -> Result<Vec<TensorId>, Error> {
        let common = self.common(place);
        let mut slices = Vec::with_capacity(over.len());
        for (slice_idx, id) in over.iter().enumerate() {
            self.length(Some(*id), axis)?;
            slices.push(self.slice(&common, *id, axis, slice_idx)?);
        }
        Ok(slices)
    }

    fn slice(
        &mut self,
        common: &Common,
        id: TensorId,
        axis: usize,
        slice_idx: usize,
    ) -> Result<TensorId, Error> {
        let known = self.builder.get(id).tensor_type.clone();
        let mut shape = known.map(|known| known.shape).unwrap_or_default();
        let ranges = vec![Range { axis, start: Dim::ZERO, end: Dim::ONE, step: 1 }];
        let op = Op::Slice { ranges, storage: Storage::View };
        let suffix = format!(".slice{slice_idx}");
        let cut = self.add(common, &suffix, op, vec![id], ("slice", None))?;
        if axis < shape.rank() {
            shape.0.remove(axis);
        }
        let suffix = format!(".row{slice_idx}");
        self.add(common, &suffix, Op::Reshape { shape }, vec![cut], ("row", None))
    }

    /// Results of a loop: the first `n_carried` as the last round left them, the others written
    /// round by round into one tensor.
    fn stacked(
        &mut self,
        place: &mut Place<'_, 'a>,
        results: &[TensorId],
        n_carried: usize,
        rounds: &Dim,
    ) -> Result<(), Error> {
        let common = self.common(place);
        for (result_idx, output) in output_names(&place.node.outputs).enumerate() {
            let Some(id) = results.get(result_idx).copied() else {
                return Err(Error::new("has more results than its body"));
            };
            if result_idx < n_carried {
                place.tensors.insert(output, id);
                continue;
            }
            let declared = self.tensor_type(place.graph, output);
            let known = self.builder.get(id).tensor_type.clone();
            let stacked = known.map(|mut known| {
                known.shape.0.insert(0, rounds.clone());
                known
            });
            let Some(TensorType { shape, format }) = declared.or(stacked) else { continue };
            let op = Op::Fill { shape, format };
            let id = self.add(&common, &format!(".{output}"), op, vec![id], (output, None))?;
            place.tensors.insert(output, id);
        }
        Ok(())
    }

    /// Attention whose scores and mask are changed by graphs, run for each pair.
    fn flex_attention(&mut self, place: &mut Place<'_, 'a>) -> Result<(), Error> {
        let parts = Parts::of(place.node);
        let tensors = place.node.inputs.iter().map(|argument| &argument.arg);
        let names: Vec<&str> = tensors.filter_map(|a| a.as_tensor()).map(|t| &*t.name).collect();
        let Some(names) = names.get(..3) else {
            return Err(Error::new("needs a query, a key and a value"));
        };
        let operands = self.operands(place, names)?;
        let buffers = self.operands(place, &parts.all())?;
        let common = self.common(place);
        let masks_by_graph = parts.graphs.get(1).is_some_and(|graph| !graph.nodes.is_empty());
        let is_masked = masks_by_graph || !buffers.is_empty();
        let mask = if is_masked { Mask::Tensor } else { Mask::Full };
        let outputs: Vec<_> = output_names(&place.node.outputs)
            .map(|output| (output.to_owned(), self.tensor_type(place.graph, output)))
            .collect();
        let op = Op::Attention(Attention::new(mask));
        let made = self.builder.insert(common.node("", Ok(op), operands.clone(), outputs))?;
        let size = |importer: &Importer, id: TensorId, from_back: usize| {
            let known = importer.builder.get(id).tensor_type.as_ref()?;
            known.shape.0.get(known.shape.rank().checked_sub(from_back)?).cloned()
        };
        let query = self.builder.get(operands[0]).tensor_type.clone();
        let rows = query.and_then(|query| {
            let width = query.shape.0.last()?.clone();
            query.shape.elements().exact_div(&width)
        });
        if let (Some(rows), Some(keys)) = (rows, size(self, operands[1], 2)) {
            let pairs = &rows * &keys;
            for (graph, label) in parts.graphs.iter().zip([".score_mod", ".mask_mod"]) {
                self.per_pair(place, graph, &buffers, label, &pairs)?;
            }
        }
        place.tensors.extend(output_names(&place.node.outputs).zip(made));
        Ok(())
    }

    /// A graph over the score of one pair, and the batch, head, query and key it belongs to.
    fn per_pair(
        &mut self,
        place: &Place<'_, 'a>,
        graph: &'a GraphJson<'a>,
        buffers: &[TensorId],
        label: &str,
        pairs: &Dim,
    ) -> Result<(), Error> {
        let common = self.common(place);
        let mut operands = Vec::new();
        for (parameter_idx, name) in graph.inputs.iter().flat_map(input_names).enumerate() {
            let known = self.tensor_type(graph, name);
            let scalar = TensorType { shape: Shape::default(), format: Format::INT32 };
            let known = known.unwrap_or(scalar);
            let is_scalar = known.shape.rank() == 0;
            let buffer = buffers.iter().find(|id| {
                self.builder.get(**id).tensor_type.as_ref() == Some(&known) && !is_scalar
            });
            operands.push(match buffer {
                Some(buffer) => *buffer,
                None => {
                    let op = Op::Fill { shape: known.shape, format: known.format };
                    let suffix = format!("{label}.{parameter_idx}");
                    let id = self.add(&common, &suffix, op, Vec::new(), ("scalar", None))?;
                    self.builder.set_role(id, Role::Internal);
                    id
                }
            });
        }
        let before = operands.iter().map(|id| id.0 + 1).max();
        let results = self.body(place, graph, &operands, label, pairs)?;
        // Scores never reach memory. Tensors are numbered as they are made.
        let after = results.iter().map(|id| id.0 + 1).max();
        if let (Some(before), Some(after)) = (before, after) {
            let made: Vec<TensorId> = (before..after).map(TensorId).collect();
            self.builder.hide(&made);
        }
        Ok(())
    }

    /// Between the two marks every node runs once per element of the mapped axis, which the shapes
    /// in the file do not show.
    fn vmap(&mut self, place: &mut Place<'_, 'a>, operator: &str) -> Result<bool, Error> {
        let node = place.node;
        match operator {
            "_vmap_increment_nesting" => {
                let size = node.inputs.first().map(|argument| &argument.arg);
                let size = size.and_then(|size| match (size.as_int(), size.as_sym_int()) {
                    (Some(number), _) => Some(Dim::from(*number)),
                    (None, Some(sym)) => {
                        let name = sym.as_name.as_ref()?;
                        let size = place.graph.sym_int_values.get(name);
                        size.and_then(|size| self.dim(size))
                    }
                    (None, None) => None,
                });
                let size = size.ok_or_else(|| Error::new("maps over an axis without a size"))?;
                if MAX_GRAPH_DEPTH <= self.vmaps.len() {
                    let what = format!("nests vmap deeper than {MAX_GRAPH_DEPTH}");
                    return Err(Error::new(what));
                }
                let inner = &self.repeat * &size;
                self.vmaps.push(std::mem::replace(&mut self.repeat, inner));
            }
            "_vmap_decrement_nesting" => {
                let outer = self.vmaps.pop();
                self.repeat = outer.ok_or_else(|| Error::new("ends a vmap that never began"))?;
            }
            "_add_batch_dim" => {
                let Some(output) = output_names(&node.outputs).next() else { return Ok(true) };
                let input = node.inputs.iter().flat_map(|argument| input_names(&argument.arg));
                let input = input.into_iter().next().unwrap_or_default();
                let id = self.operand(place, input)?;
                let common = self.common(place);
                let axis = node.inputs.get(1).and_then(|argument| argument.arg.as_int().copied());
                let rank = self.builder.get(id).tensor_type.as_ref().map_or(0, |t| t.shape.rank());
                let axis = crate::graph::axis_of(axis.unwrap_or(0), rank)
                    .map_err(|error| Error::new(error.to_string()))?;
                let id = self.slice(&common, id, axis, 0)?;
                place.tensors.insert(output, id);
            }
            "_remove_batch_dim" => {
                let input = node.inputs.iter().flat_map(|argument| input_names(&argument.arg));
                let input = input.into_iter().next().unwrap_or_default();
                let id = self.operand(place, input)?;
                let mut common = self.common(place);
                common.repeat = self.vmaps.last().cloned().unwrap_or(Dim::ONE);
                let Some(output) = output_names(&node.outputs).next() else { return Ok(true) };
                let declared = self.tensor_type(place.graph, output);
                let Some(TensorType { shape, format }) = declared else {
                    return Err(Error::new("gives no shape to the result of a vmap"));
                };
                let op = Op::Fill { shape, format };
                let id = self.add(&common, "", op, vec![id], (output, None))?;
                place.tensors.insert(output, id);
            }
            _ => return Ok(output_names(&node.outputs).next().is_none()),
        }
        Ok(true)
    }
}

/// The beginning of a name.
fn short(name: &str) -> String {
    name.chars().take(MAX_PREFIX).collect()
}

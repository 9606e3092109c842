//! A Python pickle as plain data: its opcodes are followed, and nothing that it names is ever
//! imported, made or called. What the pickle would have Python call is kept as an [`Object`], a
//! record of the name and the arguments.
//!
//! Not here: what the objects mean (`torch.rs`). Opcodes of protocols 0 to 5:
//! <https://github.com/python/cpython/blob/main/Lib/pickletools.py>.

use crate::error::Error;
use std::collections::HashMap;
use std::io::{self, BufReader, Read};

/// Bytes of one pickle; that of 100,000 tensors has about 15 MB.
const MAX_PICKLE_BYTES: u64 = 256 << 20;
/// Bytes that the values take in memory, by the sums below; those of 40,000 tensors take 20 MB.
const MAX_HELD_BYTES: usize = 24 << 20;
/// Steps of one pickle; a tensor takes about 60.
const MAX_STEPS: u64 = 1 << 23;
/// Longer texts are no names of tensors; they are passed over.
const MAX_TEXT_BYTES: u64 = 1 << 16;
/// Values on the stack; Python itself writes batches of 1,000.
const MAX_STACK: usize = 1 << 20;
/// Values that a pickle has begun and not ended; Python gives up at about 1,000.
const MAX_MARKS: usize = 1 << 16;
/// Bytes of memory counted for a value, an item of a list, an entry of a dict or of the memo.
const VALUE_BYTES: usize = 32;
const ITEM_BYTES: usize = 8;
const ENTRY_BYTES: usize = 16;
/// Read at a time.
const BUFFER_BYTES: usize = 16 << 10;

/// A value's place among the others.
pub(super) type Id = u32;

/// `None`, and whatever is nothing to us.
const NONE: Id = 0;
const EMPTY: Id = 1;

/// One value. Lists and dicts may hold themselves.
#[derive(Debug)]
pub(super) enum Value {
    /// `None`, truths, floats, bytes, long texts: nothing that names or shapes a tensor.
    Other,
    /// A whole number of 64 bits.
    Whole(i64),
    /// A larger one, little-endian.
    Long(Box<[u8]>),
    /// Text, also that of Python 2.
    Text(Box<str>),
    /// A tuple.
    Tuple(Box<[Id]>),
    /// A list or set.
    List(Vec<Id>),
    /// A dict.
    Dict(Vec<(Id, Id)>),
    /// A name in a module, which is not looked up.
    Global(Box<(String, String)>),
    /// What the pickle leaves to its reader: a storage.
    Persistent(Id),
    /// What Python would have made by a call.
    Object(Box<Object>),
}

/// A call that does not happen, and what would be put into its result.
#[derive(Debug)]
pub(super) struct Object {
    /// What would be called.
    pub(super) callee: Id,
    /// With what: a tuple.
    pub(super) args: Id,
    /// Entries set, and elements appended under `None`.
    pub(super) items: Vec<(Id, Id)>,
    /// The state given to it.
    pub(super) state: Option<Id>,
}

/// All values of a pickle.
#[derive(Debug)]
pub(super) struct Pickle {
    values: Vec<Value>,
    /// The value it stands for.
    pub(super) root: Id,
}

impl Pickle {
    /// The value behind an id.
    pub(super) fn get(&self, id: Id) -> &Value {
        self.values.get(id as usize).unwrap_or(&Value::Other)
    }

    /// Every value, in the order in which they were met.
    pub(super) fn values(&self) -> &[Value] {
        &self.values
    }

    /// The text behind an id.
    pub(super) fn text(&self, id: Id) -> Option<&str> {
        if let Value::Text(text) = self.get(id) { Some(text) } else { None }
    }

    /// The whole number behind an id.
    pub(super) fn whole(&self, id: Id) -> Option<i64> {
        if let Value::Whole(number) = self.get(id) { Some(*number) } else { None }
    }

    /// Module and name behind an id.
    pub(super) fn global(&self, id: Id) -> Option<(&str, &str)> {
        let Value::Global(global) = self.get(id) else { return None };
        Some((&global.0, &global.1))
    }

    /// Module and name of what an object calls; that of a class which the file keeps the source of
    /// is a persistent id, `('module', class, file, source)`.
    pub(super) fn callee(&self, object: &Object) -> Option<(&str, &str)> {
        if let Value::Persistent(id) = self.get(object.callee) {
            return self.global(*self.elements(*id)?.get(1)?);
        }
        self.global(object.callee)
    }

    /// The elements of a tuple or list.
    pub(super) fn elements(&self, id: Id) -> Option<&[Id]> {
        if let Value::Tuple(elements) = self.get(id) {
            return Some(elements);
        }
        if let Value::List(elements) = self.get(id) { Some(elements) } else { None }
    }
}

/// A stream that knows how far it has come.
pub(super) struct Input<R> {
    reader: BufReader<R>,
    /// Bytes read.
    pub(super) at: u64,
    /// Where the pickle must have ended.
    end: u64,
}

impl<R: Read> Input<R> {
    pub(super) fn new(reader: R) -> Input<R> {
        Input { reader: BufReader::with_capacity(BUFFER_BYTES, reader), at: 0, end: 0 }
    }

    fn fill(&mut self, into: &mut [u8]) -> Result<(), Error> {
        self.count(into.len() as u64)?;
        self.reader.read_exact(into).map_err(|error| broken(&error))
    }

    fn count(&mut self, n_bytes: u64) -> Result<(), Error> {
        self.at = self.at.saturating_add(n_bytes);
        if self.end < self.at {
            let what = format!("is a pickle of more than {MAX_PICKLE_BYTES} bytes");
            return Err(Error::new(what).remedy(SAVE));
        }
        Ok(())
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Error> {
        let mut bytes = [0; N];
        self.fill(&mut bytes)?;
        Ok(bytes)
    }

    fn skip(&mut self, n_bytes: u64) -> Result<(), Error> {
        self.count(n_bytes)?;
        let skipped = io::copy(&mut self.reader.by_ref().take(n_bytes), &mut io::sink());
        match skipped {
            Ok(skipped) if skipped == n_bytes => Ok(()),
            Ok(_) => Err(broken(&io::ErrorKind::UnexpectedEof.into())),
            Err(error) => Err(broken(&error)),
        }
    }

    /// A length of so many bytes, little-endian.
    fn length(&mut self, width: usize) -> Result<u64, Error> {
        let mut bytes = [0; 8];
        self.fill(&mut bytes[..width])?;
        Ok(u64::from_le_bytes(bytes))
    }

    /// Text of so many bytes; `None` where it is too long to be a name.
    fn text(&mut self, n_bytes: u64) -> Result<Option<String>, Error> {
        if MAX_TEXT_BYTES < n_bytes {
            self.skip(n_bytes)?;
            return Ok(None);
        }
        let mut bytes = vec![0; n_bytes as usize];
        self.fill(&mut bytes)?;
        Ok(Some(String::from_utf8_lossy(&bytes).into_owned()))
    }

    /// A line, without its end.
    fn line(&mut self) -> Result<String, Error> {
        let mut line = Vec::new();
        loop {
            let [byte] = self.array()?;
            match byte {
                b'\n' => return Ok(String::from_utf8_lossy(&line).into_owned()),
                _ if line.len() as u64 == MAX_TEXT_BYTES => {
                    return Err(damaged("a line of it does not end"));
                }
                _ => line.push(byte),
            }
        }
    }
}

/// What to do about a pickle that cannot be read.
pub(super) const SAVE: &str = "save the weights with safetensors.torch.save_file";

fn broken(error: &io::Error) -> Error {
    super::unreadable(error)
}

fn damaged(what: &str) -> Error {
    Error::new(format!("is a damaged pickle: {what}")).remedy("download or save it again")
}

/// Reads one pickle and stops behind its end.
pub(super) fn read<R: Read>(input: &mut Input<R>) -> Result<Pickle, Error> {
    input.end = input.at.saturating_add(MAX_PICKLE_BYTES);
    let mut machine = Machine::new();
    for _ in 0..MAX_STEPS {
        let [opcode] = input.array()?;
        if opcode == b'.' {
            let root = machine.pop()?;
            return Ok(Pickle { values: machine.values, root });
        }
        machine.step(opcode, input)?;
    }
    Err(Error::new(format!("is a pickle of more than {MAX_STEPS} steps")).remedy(SAVE))
}

/// The stack machine that pickles are written for, without its means to call anything.
struct Machine {
    values: Vec<Value>,
    stack: Vec<Id>,
    marks: Vec<usize>,
    memo: HashMap<u32, Id>,
    held_bytes: usize,
}

impl Machine {
    fn new() -> Machine {
        let values = vec![Value::Other, Value::Tuple(Box::new([]))];
        Machine {
            values,
            stack: Vec::new(),
            marks: Vec::new(),
            memo: HashMap::new(),
            held_bytes: 0,
        }
    }

    fn hold(&mut self, n_bytes: usize) -> Result<(), Error> {
        self.held_bytes = self.held_bytes.saturating_add(n_bytes);
        if MAX_HELD_BYTES < self.held_bytes {
            let what = format!("is a pickle whose values take more than {MAX_HELD_BYTES} bytes");
            return Err(Error::new(what).remedy(SAVE));
        }
        Ok(())
    }

    fn push(&mut self, id: Id) -> Result<(), Error> {
        if self.stack.len() == MAX_STACK {
            return Err(damaged("its stack has no end"));
        }
        self.stack.push(id);
        Ok(())
    }

    fn make(&mut self, value: Value) -> Result<Id, Error> {
        let extra = match &value {
            Value::Text(text) => text.len(),
            Value::Long(bytes) => bytes.len(),
            Value::Tuple(elements) => ITEM_BYTES * elements.len(),
            Value::List(elements) => ITEM_BYTES * elements.len(),
            Value::Dict(entries) => ENTRY_BYTES * entries.len(),
            Value::Global(global) => 64 + global.0.len() + global.1.len(),
            Value::Object(_) => 64,
            Value::Other | Value::Whole(_) | Value::Persistent(_) => 0,
        };
        self.hold(VALUE_BYTES + extra)?;
        // Bounded by MAX_HELD_BYTES, far below 2^32.
        let id = self.values.len() as Id;
        self.values.push(value);
        Ok(id)
    }

    fn push_new(&mut self, value: Value) -> Result<(), Error> {
        let id = self.make(value)?;
        self.push(id)
    }

    fn push_text(&mut self, text: Option<String>) -> Result<(), Error> {
        match text {
            Some(text) => self.push_new(Value::Text(text.into())),
            None => self.push(NONE),
        }
    }

    fn pop(&mut self) -> Result<Id, Error> {
        self.stack.pop().ok_or_else(|| damaged("it takes more than it has put down"))
    }

    fn top(&self) -> Result<Id, Error> {
        self.stack.last().copied().ok_or_else(|| damaged("it takes more than it has put down"))
    }

    /// What stands above the last mark.
    fn pop_mark(&mut self) -> Result<Vec<Id>, Error> {
        let mark = self.marks.pop().ok_or_else(|| damaged("a mark is missing"))?;
        Ok(self.stack.split_off(mark.min(self.stack.len())))
    }

    fn tuple(&mut self, elements: &[Id]) -> Result<Id, Error> {
        if elements.is_empty() { Ok(EMPTY) } else { self.make(Value::Tuple(elements.into())) }
    }

    /// Records a call instead of making it.
    fn call(&mut self, callee: Id, args: Id) -> Result<(), Error> {
        let object = Object { callee, args, items: Vec::new(), state: None };
        self.push_new(Value::Object(Box::new(object)))
    }

    fn remember(&mut self, key: u32) -> Result<(), Error> {
        let id = self.top()?;
        if self.memo.insert(key, id).is_none() {
            self.hold(ENTRY_BYTES)?;
        }
        Ok(())
    }

    fn recall(&mut self, key: u32) -> Result<(), Error> {
        let id = self.memo.get(&key).copied();
        self.push(id.ok_or_else(|| damaged("it refers to what it has not kept"))?)
    }

    fn set(&mut self, items: &[Id]) -> Result<(), Error> {
        if !items.len().is_multiple_of(2) {
            return Err(damaged("a key has no value"));
        }
        self.hold(items.len() / 2 * ENTRY_BYTES)?;
        let top = self.top()? as usize;
        let entries = items.as_chunks::<2>().0.iter().map(|[key, value]| (*key, *value));
        match self.values.get_mut(top) {
            Some(Value::Dict(held)) => held.extend(entries),
            Some(Value::Object(object)) => object.items.extend(entries),
            Some(_) | None => return Err(damaged("entries are put into what is no dict")),
        }
        Ok(())
    }

    fn append(&mut self, elements: &[Id]) -> Result<(), Error> {
        self.hold(elements.len() * ENTRY_BYTES)?;
        let top = self.top()? as usize;
        match self.values.get_mut(top) {
            Some(Value::List(held)) => held.extend(elements),
            Some(Value::Object(object)) => {
                object.items.extend(elements.iter().map(|element| (NONE, *element)));
            }
            Some(_) | None => return Err(damaged("elements are put into what is no list")),
        }
        Ok(())
    }

    fn build(&mut self) -> Result<(), Error> {
        let state = self.pop()?;
        let top = self.top()? as usize;
        if let Some(Value::Object(object)) = self.values.get_mut(top) {
            object.state = Some(state);
        }
        Ok(())
    }

    fn whole(&mut self, bytes: &[u8]) -> Result<(), Error> {
        let is_short = bytes.len() <= 8;
        if !is_short {
            return self.push_new(Value::Long(bytes.into()));
        }
        let is_negative = bytes.last().is_some_and(|last| 0x80 <= *last);
        let mut wide = [if is_negative { 0xff } else { 0 }; 8];
        wide[..bytes.len()].copy_from_slice(bytes);
        self.push_new(Value::Whole(i64::from_le_bytes(wide)))
    }

    /// One opcode and what belongs to it.
    fn step<R: Read>(&mut self, opcode: u8, input: &mut Input<R>) -> Result<(), Error> {
        match opcode {
            0x80 => match input.array()? {
                [0..=5] => Ok(()),
                [_] => Err(damaged("its protocol is newer than 5")),
            },
            0x95 => input.skip(8),
            b'(' if self.marks.len() < MAX_MARKS => {
                self.marks.push(self.stack.len());
                Ok(())
            }
            b'(' => Err(damaged("it begins more than it ends")),
            b'0' => match self.marks.last() {
                Some(mark) if *mark == self.stack.len() => self.pop_mark().map(|_| ()),
                Some(_) | None => self.pop().map(|_| ()),
            },
            b'1' => self.pop_mark().map(|_| ()),
            b'2' => self.push(self.top()?),
            b'N' | 0x88 | 0x89 => self.push(NONE),
            b'G' => {
                input.skip(8)?;
                self.push(NONE)
            }
            b'F' => {
                input.line()?;
                self.push(NONE)
            }
            b'I' | b'L' | b'J' | b'K' | b'M' | 0x8a | 0x8b => self.number(opcode, input),
            b'S' | b'T' | b'U' | b'V' | b'X' | 0x8c | 0x8d => self.string(opcode, input),
            b'B' | b'C' | 0x8e | 0x96 => self.bytes(opcode, input),
            b'p' | b'q' | b'r' | 0x94 | b'g' | b'h' | b'j' => self.memory(opcode, input),
            b'P' | b'Q' | b'c' | b'i' | b'o' | b'R' | b'b' | 0x81 | 0x92 | 0x93 | 0x82..=0x84 => {
                self.name_or_call(opcode, input)
            }
            0x97 => self.push(NONE),
            0x98 => Ok(()),
            _ => self.collect(opcode),
        }
    }

    fn number<R: Read>(&mut self, opcode: u8, input: &mut Input<R>) -> Result<(), Error> {
        match opcode {
            b'J' => {
                let bytes: [u8; 4] = input.array()?;
                self.whole(&bytes)
            }
            b'K' | b'M' => {
                let number = input.length(if opcode == b'K' { 1 } else { 2 })?;
                self.push_new(Value::Whole(number as i64))
            }
            0x8a | 0x8b => {
                let n_bytes = input.length(if opcode == 0x8a { 1 } else { 4 })?;
                if 16 < n_bytes {
                    input.skip(n_bytes)?;
                    return self.push(NONE);
                }
                let mut bytes = vec![0; n_bytes as usize];
                input.fill(&mut bytes)?;
                self.whole(&bytes)
            }
            _ => {
                let line = input.line()?;
                match (line.as_str(), line.trim_end_matches('L').parse()) {
                    ("00" | "01", _) => self.push(NONE), // truths of protocol 1
                    (_, Ok(number)) => self.push_new(Value::Whole(number)),
                    (_, Err(_)) => self.push(NONE),
                }
            }
        }
    }

    fn string<R: Read>(&mut self, opcode: u8, input: &mut Input<R>) -> Result<(), Error> {
        let width = match opcode {
            b'U' | 0x8c => 1,
            b'T' | b'X' => 4,
            0x8d => 8,
            _ => {
                let line = input.line()?;
                let quoted = line.strip_prefix(['\'', '"']);
                let inner = quoted.and_then(|text| text.strip_suffix(['\'', '"']));
                let text = inner.filter(|_| opcode == b'S').unwrap_or(&line).to_owned();
                return self.push_text(Some(text));
            }
        };
        let n_bytes = input.length(width)?;
        let text = input.text(n_bytes)?;
        self.push_text(text)
    }

    fn bytes<R: Read>(&mut self, opcode: u8, input: &mut Input<R>) -> Result<(), Error> {
        let width = match opcode {
            b'C' => 1,
            b'B' => 4,
            _ => 8,
        };
        let n_bytes = input.length(width)?;
        input.skip(n_bytes)?;
        self.push(NONE)
    }

    fn memory<R: Read>(&mut self, opcode: u8, input: &mut Input<R>) -> Result<(), Error> {
        let key = match opcode {
            0x94 => self.memo.len() as u32,
            b'q' | b'h' => input.length(1)? as u32,
            b'r' | b'j' => input.length(4)? as u32,
            _ => {
                let key = input.line()?.parse();
                key.map_err(|_| damaged("a key of its memo is no number"))?
            }
        };
        match opcode {
            b'g' | b'h' | b'j' => self.recall(key),
            _ => self.remember(key),
        }
    }

    fn name_or_call<R: Read>(&mut self, opcode: u8, input: &mut Input<R>) -> Result<(), Error> {
        match opcode {
            b'P' => {
                let line = input.line()?;
                let id = self.make(Value::Text(line.into()))?;
                self.push_new(Value::Persistent(id))
            }
            b'Q' => {
                let id = self.pop()?;
                self.push_new(Value::Persistent(id))
            }
            b'c' => {
                let global = (input.line()?, input.line()?);
                self.push_new(Value::Global(Box::new(global)))
            }
            0x93 => {
                let (name, module) = (self.pop()?, self.pop()?);
                let text = |id: Id| match self.values.get(id as usize) {
                    Some(Value::Text(text)) => text.to_string(),
                    Some(_) | None => String::new(),
                };
                let global = (text(module), text(name));
                self.push_new(Value::Global(Box::new(global)))
            }
            b'i' => {
                let global = (input.line()?, input.line()?);
                let args = self.pop_mark()?;
                let callee = self.make(Value::Global(Box::new(global)))?;
                let args = self.tuple(&args)?;
                self.call(callee, args)
            }
            b'o' => {
                let all = self.pop_mark()?;
                let (callee, args) =
                    all.split_first().ok_or_else(|| damaged("a call names nothing"))?;
                let args = self.tuple(args)?;
                self.call(*callee, args)
            }
            b'b' => self.build(),
            0x82..=0x84 => {
                input.skip([1, 2, 4][usize::from(opcode - 0x82)])?;
                self.push(NONE)
            }
            _ => {
                if opcode == 0x92 {
                    self.pop()?; // arguments by name
                }
                let (args, callee) = (self.pop()?, self.pop()?);
                self.call(callee, args)
            }
        }
    }

    fn collect(&mut self, opcode: u8) -> Result<(), Error> {
        match opcode {
            b')' => self.push(EMPTY),
            b']' | 0x8f => self.push_new(Value::List(Vec::new())),
            b'}' => self.push_new(Value::Dict(Vec::new())),
            b't' => {
                let elements = self.pop_mark()?;
                let tuple = self.tuple(&elements)?;
                self.push(tuple)
            }
            0x85..=0x87 => {
                let n_elements = usize::from(opcode - 0x84);
                let start = self.stack.len().checked_sub(n_elements);
                let start = start.ok_or_else(|| damaged("a tuple lacks elements"))?;
                let elements = self.stack.split_off(start);
                let tuple = self.tuple(&elements)?;
                self.push(tuple)
            }
            b'l' | 0x91 => {
                let elements = self.pop_mark()?;
                self.push_new(Value::List(elements))
            }
            b'd' => {
                let items = self.pop_mark()?;
                self.push_new(Value::Dict(Vec::new()))?;
                self.set(&items)
            }
            b's' => {
                let (value, key) = (self.pop()?, self.pop()?);
                self.set(&[key, value])
            }
            b'u' => {
                let items = self.pop_mark()?;
                self.set(&items)
            }
            b'a' => {
                let element = self.pop()?;
                self.append(&[element])
            }
            b'e' | 0x90 => {
                let elements = self.pop_mark()?;
                self.append(&elements)
            }
            _ => Err(damaged(&format!("no pickle has the opcode {opcode:#04x}"))),
        }
    }
}

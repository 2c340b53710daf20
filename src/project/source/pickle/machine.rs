//! The pickle machine, with nothing behind it: a stack of what is known of each value, a memo, and no imports.
//!
//! It runs every opcode's effect on the stack, so that a name made from operands is known or refused, and an array's size is read
//! from the wrapper that stands before it.
//!
//! Source: CPython's `Lib/pickletools.py`, `Lib/pickle.py`.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use super::array::{self, Dtype, Follows};
use super::stream::Input;
use super::value::{
    LONGEST_TEXT, MOST_ITEMS, Tuple, Value, WRAPPERS, is_wrapper, no_wrapper, number_line, quoted, text_line,
};
use super::{Global, Persistent, PickleError, PickleFacts};

/// The most values on the stack: a tuple's items are all there before it is made.
const MOST_VALUES: usize = 1 << 23;
pub(super) struct Machine {
    persistent: Persistent,
    /// Whether joblib's arrays may stand in this stream; they do not in the pickle of an array of objects.
    arrays: bool,
    stack: Vec<Value>,
    marks: Vec<usize>,
    memo: Vec<Option<Value>>,
    memo_count: usize,
}

impl Machine {
    pub(super) fn new(persistent: Persistent) -> Self {
        Self {
            persistent,
            arrays: true,
            stack: Vec::new(),
            marks: Vec::new(),
            memo: Vec::new(),
            memo_count: 0,
        }
    }

    /// Runs one pickle to its STOP.
    pub(super) fn run(mut self, input: &mut Input<'_>, facts: &mut PickleFacts) -> Result<(), PickleError> {
        facts.streams += 1;
        let start = input.position();
        loop {
            let at = input.position();
            let Some(opcode) = input.next()? else {
                return Err(PickleError::Truncated { at });
            };
            if opcode == b'.' {
                self.pop(input)?;
                if !self.stack.is_empty() || !self.marks.is_empty() {
                    return Err(input.rule("the pickle ends with values left over"));
                }
                return Ok(());
            }
            if opcode == 0x80 {
                let [protocol] = input.array()?;
                if at != start || protocol > 5 {
                    return Err(input.rule("a protocol is declared that there is not, or too late"));
                }
                facts.protocol = facts.protocol.max(protocol);
                continue;
            }
            self.step(opcode, at, input, facts)?;
            if self.stack.len() > MOST_VALUES {
                return Err(PickleError::Limit {
                    at,
                    what: "the stack's depth",
                    limit: MOST_VALUES as u64,
                });
            }
        }
    }

    fn step(
        &mut self,
        opcode: u8,
        at: u64,
        input: &mut Input<'_>,
        facts: &mut PickleFacts,
    ) -> Result<(), PickleError> {
        match opcode {
            // Constants.
            b'N' => self.stack.push(Value::None),
            0x88 | 0x89 => self.stack.push(Value::Opaque),
            b'K' => {
                let [byte] = input.array()?;
                self.stack.push(Value::Int(byte.into()));
            }
            b'M' => {
                let number = u16::from_le_bytes(input.array()?);
                self.stack.push(Value::Int(number.into()));
            }
            b'J' => {
                let number = i32::from_le_bytes(input.array()?);
                self.stack.push(Value::Int(number.into()));
            }
            b'I' | b'L' => {
                let line = input.line()?;
                let number = number_line(&line).ok_or_else(|| input.rule("a number is not one"))?;
                self.stack.push(number);
            }
            0x8a => {
                let [size] = input.array()?;
                self.long(size.into(), input)?;
            }
            0x8b => {
                let size = i32::from_le_bytes(input.array()?);
                let size = u64::try_from(size).map_err(|_| input.rule("a number has a negative size"))?;
                self.long(size, input)?;
            }
            b'F' => {
                let line = input.line()?;
                let number = std::str::from_utf8(&line)
                    .ok()
                    .and_then(|text| text.trim().parse::<f64>().ok());
                number.ok_or_else(|| input.rule("a number is not one"))?;
                self.stack.push(Value::Opaque);
            }
            b'G' => {
                input.skip(8)?;
                self.stack.push(Value::Opaque);
            }
            // Text and bytes.
            b'S' => {
                let line = input.line()?;
                let value = quoted(&line).ok_or_else(|| input.rule("a string is not quoted"))?;
                self.stack.push(value);
            }
            b'V' => {
                let line = input.line()?;
                self.stack.push(text_line(&line));
            }
            b'X' => {
                let size = u32::from_le_bytes(input.array()?);
                self.text(size.into(), input)?;
            }
            0x8c => {
                let [size] = input.array()?;
                self.text(size.into(), input)?;
            }
            0x8d => {
                let size = u64::from_le_bytes(input.array()?);
                self.text(size, input)?;
            }
            // Python 2's strings may be names as well.
            b'U' => {
                let [size] = input.array()?;
                self.text(size.into(), input)?;
            }
            b'T' => {
                let size = i32::from_le_bytes(input.array()?);
                let size = u64::try_from(size).map_err(|_| input.rule("a string has a negative size"))?;
                self.text(size, input)?;
            }
            b'C' => {
                let [size] = input.array()?;
                self.opaque_bytes(size.into(), input)?;
            }
            b'B' => {
                let size = u32::from_le_bytes(input.array()?);
                self.opaque_bytes(size.into(), input)?;
            }
            0x8e | 0x96 => {
                let size = u64::from_le_bytes(input.array()?);
                self.opaque_bytes(size, input)?;
            }
            0x97 => return Err(input.rule("it needs a buffer that is not in the file")),
            0x98 => {
                let value = self.pop(input)?;
                self.stack.push(value);
            }
            // Containers.
            b'(' => self.marks.push(self.stack.len()),
            b')' => self.tuple(Vec::new(), input)?,
            0x85..=0x87 => {
                let mut items = Vec::new();
                for _ in 0..=(opcode - 0x85) {
                    items.push(self.pop(input)?);
                }
                items.reverse();
                self.tuple(items, input)?;
            }
            b't' => {
                let items = self.pop_mark(input)?;
                self.tuple(items, input)?;
            }
            b']' | 0x8f => self.stack.push(Value::Opaque),
            b'l' | 0x91 => {
                let items = self.pop_mark(input)?;
                no_wrapper(&items, input)?;
                self.stack.push(Value::Opaque);
            }
            b'}' => self.new_dict(),
            b'd' => {
                let items = self.pop_mark(input)?;
                self.new_dict();
                self.set_items(items, input)?;
            }
            b'a' => {
                let item = self.pop(input)?;
                no_wrapper(&[item], input)?;
                self.top(input)?;
            }
            b'e' | 0x90 => {
                let items = self.pop_mark(input)?;
                no_wrapper(&items, input)?;
                self.top(input)?;
            }
            b's' => {
                let value = self.pop(input)?;
                let key = self.pop(input)?;
                self.set_items(vec![key, value], input)?;
            }
            b'u' => {
                let items = self.pop_mark(input)?;
                self.set_items(items, input)?;
            }
            // The stack and the memo.
            b'0' => match self.marks.last() {
                Some(mark) if *mark == self.stack.len() => {
                    self.marks.pop();
                }
                _ => {
                    self.pop(input)?;
                }
            },
            b'1' => {
                self.pop_mark(input)?;
            }
            b'2' => {
                let value = self.top(input)?.clone();
                self.stack.push(value);
            }
            b'p' | b'g' => {
                let line = input.line()?;
                let index = std::str::from_utf8(&line).ok().and_then(|text| text.parse().ok());
                let index = index.ok_or_else(|| input.rule("the memo has no such place"))?;
                self.memo_at(opcode == b'p', index, input)?;
            }
            b'q' | b'h' => {
                let [index] = input.array()?;
                self.memo_at(opcode == b'q', index.into(), input)?;
            }
            b'r' | b'j' => {
                let index = u32::from_le_bytes(input.array()?);
                self.memo_at(opcode == b'r', index.into(), input)?;
            }
            0x94 => self.memo_at(true, self.memo_count as u64, input)?,
            // Names.
            b'c' => {
                let global = self.global_lines(input, facts)?;
                self.stack.push(Value::Global(global));
            }
            0x93 => {
                let name = self.pop(input)?;
                let module = self.pop(input)?;
                let (Value::Text(module), Value::Text(name)) = (module, name) else {
                    return Err(PickleError::Rule {
                        at,
                        rule: "a name is put together when the pickle is loaded, so it cannot be known",
                    });
                };
                let global = self.global(&module, &name, input, facts)?;
                self.stack.push(Value::Global(global));
            }
            0x82..=0x84 => {
                return Err(input.rule("it uses the extension registry, whose names are not in the file"));
            }
            b'P' => {
                input.line()?;
                self.persistent(input)?;
            }
            b'Q' => {
                let id = self.pop(input)?;
                no_wrapper(&[id], input)?;
                self.persistent(input)?;
            }
            // Objects.
            b'R' => self.reduce(input)?,
            b'i' => {
                let global = self.global_lines(input, facts)?;
                let arguments = self.pop_mark(input)?;
                no_wrapper(&[Value::Global(global)], input)?;
                no_wrapper(&arguments, input)?;
                self.stack.push(Value::Opaque);
            }
            b'o' => {
                let items = self.pop_mark(input)?;
                if items.is_empty() {
                    return Err(input.rule("an object has no class"));
                }
                no_wrapper(&items, input)?;
                self.stack.push(Value::Opaque);
            }
            0x81 => {
                let arguments = self.pop(input)?;
                let class = self.pop(input)?;
                let value = self.made(&class, &arguments, input)?;
                self.stack.push(value);
            }
            0x92 => {
                let items = [self.pop(input)?, self.pop(input)?, self.pop(input)?];
                no_wrapper(&items, input)?;
                self.stack.push(Value::Opaque);
            }
            b'b' => self.build(input, facts)?,
            0x95 => {
                let size = u64::from_le_bytes(input.array()?);
                input.begin_frame(size)?;
            }
            byte => return Err(PickleError::Opcode { at, byte }),
        }
        Ok(())
    }

    fn pop(&mut self, input: &Input<'_>) -> Result<Value, PickleError> {
        let floor = self.marks.last().copied().unwrap_or(0);
        match self.stack.pop() {
            Some(value) if self.stack.len() >= floor => Ok(value),
            _ => Err(input.rule("an opcode takes a value that is not there")),
        }
    }

    fn top(&self, input: &Input<'_>) -> Result<&Value, PickleError> {
        let floor = self.marks.last().copied().unwrap_or(0);
        match self.stack.last() {
            Some(value) if self.stack.len() > floor => Ok(value),
            _ => Err(input.rule("an opcode takes a value that is not there")),
        }
    }

    fn pop_mark(&mut self, input: &Input<'_>) -> Result<Vec<Value>, PickleError> {
        match self.marks.pop() {
            Some(mark) => Ok(self.stack.split_off(mark)),
            None => Err(input.rule("an opcode takes a mark that is not there")),
        }
    }

    fn long(&mut self, size: u64, input: &mut Input<'_>) -> Result<(), PickleError> {
        // Larger ones are numbers too, but no array's.
        let value = if size <= 16 {
            let bytes = input.bytes(size)?;
            let negative = bytes.last().is_some_and(|byte| byte & 0x80 != 0);
            let mut wide = [if negative { 0xff } else { 0 }; 16];
            wide[..bytes.len()].copy_from_slice(&bytes);
            Value::Int(i128::from_le_bytes(wide))
        } else {
            input.skip(size)?;
            Value::Opaque
        };
        self.stack.push(value);
        Ok(())
    }

    fn text(&mut self, size: u64, input: &mut Input<'_>) -> Result<(), PickleError> {
        if size > LONGEST_TEXT {
            return self.opaque_bytes(size, input);
        }
        let bytes = input.bytes(size)?;
        self.stack.push(match std::str::from_utf8(&bytes) {
            Ok(text) => Value::Text(text.into()),
            Err(_) => Value::Opaque,
        });
        Ok(())
    }

    fn opaque_bytes(&mut self, size: u64, input: &mut Input<'_>) -> Result<(), PickleError> {
        input.skip(size)?;
        self.stack.push(Value::Opaque);
        Ok(())
    }

    /// A tuple may hold a wrapper's class, for `copyreg._reconstructor` in old protocols; what takes the tuple looks.
    fn tuple(&mut self, items: Vec<Value>, input: &Input<'_>) -> Result<(), PickleError> {
        if items.len() > MOST_ITEMS {
            no_wrapper(&items, input)?;
            self.stack.push(Value::Opaque);
            return Ok(());
        }
        let items: Vec<Value> = items.into_iter().map(Value::kept).collect();
        let depth = items.iter().map(|item| match item {
            Value::Tuple(tuple) => tuple.depth + 1,
            _ => 1,
        });
        let depth = depth.max().unwrap_or(0);
        if depth > 2 {
            no_wrapper(&items, input)?;
        }
        self.stack.push(Value::Tuple(Rc::new(Tuple { items, depth })));
        Ok(())
    }

    fn new_dict(&mut self) {
        self.stack.push(Value::Dict(Rc::default()));
    }

    /// Keys and values in turn, for the dict on top, or whatever is there instead.
    fn set_items(&mut self, items: Vec<Value>, input: &Input<'_>) -> Result<(), PickleError> {
        if !items.len().is_multiple_of(2) {
            return Err(input.rule("a dict has a key without a value"));
        }
        no_wrapper(&items, input)?;
        if let Value::Dict(dict) = self.top(input)? {
            let mut dict = dict.borrow_mut();
            let mut items = items.into_iter();
            while let (Some(key), Some(value)) = (items.next(), items.next()) {
                dict.set(&key, value.kept());
            }
        }
        Ok(())
    }

    fn memo_at(&mut self, puts: bool, index: u64, input: &Input<'_>) -> Result<(), PickleError> {
        // Places are numbered in order, and each takes an opcode: there cannot be more of them than bytes.
        let place = usize::try_from(index).ok().filter(|_| index <= input.position());
        let place = place.ok_or_else(|| input.rule("the memo has no such place"))?;
        if puts {
            let value = self.top(input)?.clone();
            if self.memo.len() <= place {
                self.memo.resize(place + 1, None);
            }
            if self.memo[place].replace(value).is_none() {
                self.memo_count += 1;
            }
            return Ok(());
        }
        let value = self.memo.get(place).cloned().flatten();
        self.stack
            .push(value.ok_or_else(|| input.rule("the memo has no such place"))?);
        Ok(())
    }

    fn global_lines(
        &mut self,
        input: &mut Input<'_>,
        facts: &mut PickleFacts,
    ) -> Result<Rc<Global>, PickleError> {
        let (module, name) = (input.line()?, input.line()?);
        match (std::str::from_utf8(&module), std::str::from_utf8(&name)) {
            (Ok(module), Ok(name)) => self.global(module, name, input, facts),
            _ => Err(input.rule("a name is not UTF-8")),
        }
    }

    fn global(
        &mut self,
        module: &str,
        name: &str,
        input: &Input<'_>,
        facts: &mut PickleFacts,
    ) -> Result<Rc<Global>, PickleError> {
        let plain = |text: &str| {
            !text.is_empty()
                && text.len() as u64 <= LONGEST_TEXT
                && !text.chars().any(|c| c.is_control() || c.is_whitespace())
        };
        if !plain(module) || !plain(name) {
            return Err(input.rule("a name is not one that Python has"));
        }
        // What `fix_imports` does for pickles of Python 2.
        let module = match module {
            "__builtin__" => "builtins",
            "copy_reg" => "copyreg",
            other => other,
        };
        let global = Global {
            module: module.to_owned(),
            name: name.to_owned(),
        };
        if is_wrapper(&global) && (!self.arrays || global.name != WRAPPERS[0]) {
            return Err(input.rule("an array is described in a way that joblib does not write"));
        }
        if !facts.globals.contains(&global) {
            facts.globals.insert(global.clone());
        }
        Ok(Rc::new(global))
    }

    fn persistent(&mut self, input: &Input<'_>) -> Result<(), PickleError> {
        if self.persistent == Persistent::Refused {
            return Err(input.rule("it refers to an object outside of the file"));
        }
        self.stack.push(Value::Opaque);
        Ok(())
    }

    fn reduce(&mut self, input: &Input<'_>) -> Result<(), PickleError> {
        let arguments = self.pop(input)?;
        let callable = self.pop(input)?;
        let items: &[Value] = match &arguments {
            Value::Tuple(tuple) => &tuple.items,
            _ => &[],
        };
        let value = match items {
            [class, base, Value::None] if callable.is("copyreg", "_reconstructor") => {
                no_wrapper(std::slice::from_ref(base), input)?;
                self.made(class, &Value::Opaque, input)?
            }
            [Value::Text(code), ..] if callable.is("numpy", "dtype") => {
                let dtype = Dtype::from_code(code);
                Value::Dtype(Rc::new(RefCell::new(dtype)))
            }
            _ => {
                no_wrapper(&[callable, arguments], input)?;
                Value::Opaque
            }
        };
        self.stack.push(value);
        Ok(())
    }

    /// An instance of `class`, made without calling its `__init__`.
    fn made(&self, class: &Value, arguments: &Value, input: &Input<'_>) -> Result<Value, PickleError> {
        no_wrapper(std::slice::from_ref(arguments), input)?;
        if class.is_wrapper_class() {
            return Ok(Value::Wrapper(Rc::new(Cell::new(false))));
        }
        no_wrapper(std::slice::from_ref(class), input)?;
        Ok(Value::Opaque)
    }

    fn build(&mut self, input: &mut Input<'_>, facts: &mut PickleFacts) -> Result<(), PickleError> {
        let state = self.pop(input)?;
        no_wrapper(std::slice::from_ref(&state), input)?;
        match self.top(input)?.clone() {
            Value::Dtype(dtype) => {
                let known = match &state {
                    Value::Tuple(tuple) => dtype.borrow().and_then(|known| known.with_state(&tuple.items)),
                    _ => None,
                };
                dtype.replace(known);
            }
            Value::Wrapper(is_read) => {
                let Value::Dict(state) = state else {
                    return Err(input.rule("an array is described in a way that joblib does not write"));
                };
                let state = state.borrow();
                if is_read.replace(true) || !state.complete {
                    return Err(input.rule("an array is described in a way that joblib does not write"));
                }
                facts.arrays += 1;
                if let Follows::Pickle = array::skip(&state, input)? {
                    let nested = Self {
                        arrays: false,
                        ..Self::new(self.persistent)
                    };
                    nested.run(input, facts)?;
                    input.between_frames()?;
                }
                self.stack.pop();
                self.stack.push(Value::Opaque);
            }
            _ => {}
        }
        Ok(())
    }
}

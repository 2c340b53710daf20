//! Inflating, written by us for splicing: it says at which bit a stream ends, and clears the mark of its last block on the way.
//!
//! It takes a stream in pieces of any size and gives its content in pieces of [`PIECE`], in a buffer that also holds what is not
//! inflated: a layer's tar is put together there. It does not know zip, gzip or tar. It takes what zlib takes and refuses what zlib
//! refuses; docs/decisions/splice.md has the reasons and figures.
//!
//! Where it is fast it is unchecked: one loop, [`Inflater::decode`], which says on what it relies. Its method is the one that is known
//! from libdeflate: a word of bits that is filled without a branch, tables whose entries hold all that a symbol needs, copies in words
//! that may run over the end of a match.
//!
//! Source: RFC 1951.

mod tables;

use std::ops::Range;

use tables::{Bits, DISTANCE_BITS, END, Entry, HEADER_BITS, LITERAL, LITERAL_BITS, SPECIAL, Tables, WRONG};

/// How far back a match may reach, in bytes.
const WINDOW: usize = 32 << 10;
/// How many bytes are collected in an [`Output`] before they have to be taken.
pub const PIECE: usize = 256 << 10;
/// What may be written behind them: three literals and the longest match, with the words that are copied too much.
const OVERRUN: usize = 3 + 258 + 32;
/// How many bytes behind an input's own have to be there, with any content: the unchecked loop reads words.
pub const PADDING: usize = 64;
/// How many bytes before the end of what may be read the unchecked loop stops: three words. It takes one before it begins.
const MARGIN: usize = 24;

const NO_STREAM: usize = usize::MAX;

/// Bytes on their way: those of streams as they are inflated, and others between them.
pub struct Output {
    /// What a match may refer to, then what was not taken yet, then room.
    bytes: Box<[u8]>,
    /// The first byte that was not taken.
    from: usize,
    filled: usize,
    /// Matches of the stream that is being inflated may not reach below this; outside a stream, [`NO_STREAM`].
    floor: usize,
}

impl Default for Output {
    fn default() -> Self {
        Self::new()
    }
}

impl Output {
    pub fn new() -> Self {
        Self {
            bytes: vec![0; WINDOW + PIECE + OVERRUN].into(),
            from: 0,
            filled: 0,
            floor: NO_STREAM,
        }
    }

    /// How many bytes may be put in before what is there has to be taken; a match may have overrun it.
    fn room(&self) -> usize {
        (self.from + PIECE).saturating_sub(self.filled)
    }

    pub fn is_full(&self) -> bool {
        self.room() == 0
    }

    /// Appends as many of `bytes` as there is room for; gives the rest.
    pub fn push<'a>(&mut self, bytes: &'a [u8]) -> &'a [u8] {
        let (now, later) = bytes.split_at(self.room().min(bytes.len()));
        self.bytes[self.filled..self.filled + now.len()].copy_from_slice(now);
        self.filled += now.len();
        later
    }

    /// What was not taken yet.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes[self.from..self.filled]
    }

    /// How many bytes wait to be taken.
    pub fn len(&self) -> usize {
        self.filled - self.from
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Takes what is there; matches still find it.
    pub fn clear(&mut self) {
        let window = self.window();
        let kept = window.len();
        self.bytes.copy_within(window, 0);
        self.start_at(kept, self.floor);
    }

    /// Takes what is there, in its buffer, and goes on with `fresh`'s, whose bytes do not matter.
    pub fn exchange(&mut self, fresh: Output) -> Output {
        let window = self.window();
        let kept = window.len();
        let taken = std::mem::replace(self, fresh);
        self.bytes[..kept].copy_from_slice(&taken.bytes[window]);
        self.start_at(kept, taken.floor);
        taken
    }

    /// What matches may still refer to.
    fn window(&self) -> Range<usize> {
        self.floor.clamp(self.filled.saturating_sub(WINDOW), self.filled)..self.filled
    }

    fn start_at(&mut self, at: usize, floor: usize) {
        self.from = at;
        self.filled = at;
        self.floor = if floor == NO_STREAM { NO_STREAM } else { 0 };
    }
}

/// Why [`Inflater::run`] came back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pause {
    /// It needs more input than there is: keep what stands behind [`Inflater::position`], and append.
    Input,
    /// The output is full.
    Output,
    /// The stream ends at [`Inflater::position`].
    End,
}

/// A stream that is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BadStream {
    Broken,
    Endless,
}

impl BadStream {
    /// What is wrong, for people.
    pub fn rule(self) -> &'static str {
        match self {
            Self::Broken => "its deflate stream is broken",
            Self::Endless => "its deflate stream has no end",
        }
    }
}

/// Where in a stream it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// A block begins.
    Block,
    /// So many bytes of a stored block are left.
    Stored(usize),
    /// In a block with codes, between two symbols.
    Codes,
    End,
}

/// One stream after the other.
pub struct Inflater {
    tables: Tables,
    state: State,
    /// Whether the block is the stream's last.
    last: bool,
    /// In bits, from the start of the input.
    position: usize,
}

impl Default for Inflater {
    fn default() -> Self {
        Self::new()
    }
}

impl Inflater {
    pub fn new() -> Self {
        Self {
            tables: Tables::new(),
            state: State::Block,
            last: false,
            position: 0,
        }
    }

    /// A new stream begins, with the first byte of the input that comes next. Its matches reach no further back than to what `output` is given
    /// from now on.
    pub fn begin(&mut self, output: &mut Output) {
        self.state = State::Block;
        self.last = false;
        self.position = 0;
        output.floor = output.filled;
    }

    /// Where in the input the next bit of the stream stands, in bits.
    pub fn position(&self) -> usize {
        self.position
    }

    /// The first `bytes` bytes of the input, which were used, are no longer there.
    pub fn forget(&mut self, bytes: usize) {
        debug_assert!(8 * bytes <= self.position);
        self.position -= 8 * bytes;
    }

    /// Inflates `input`, but for [`PADDING`] bytes at its end that are not the stream's, until it needs more, `output` is full or the stream
    /// ends. `whole`: nothing comes behind this input. In the stream's last block's header the mark of it is cleared, in `input`, before
    /// [`Inflater::position`] comes past it.
    pub fn run(&mut self, input: &mut [u8], whole: bool, output: &mut Output) -> Result<Pause, BadStream> {
        let length = input.len().saturating_sub(PADDING);
        let outcome = self.proceed(input, length, whole, output);
        if self.position > 8 * length {
            // What it took for the stream stands behind it.
            return Err(BadStream::Endless);
        }
        outcome
    }

    fn proceed(
        &mut self,
        input: &mut [u8],
        length: usize,
        whole: bool,
        output: &mut Output,
    ) -> Result<Pause, BadStream> {
        while self.position <= 8 * length {
            if self.state == State::End {
                output.floor = NO_STREAM;
                return Ok(Pause::End);
            }
            if output.is_full() {
                return Ok(Pause::Output);
            }
            match self.state {
                State::End => {}
                State::Block => {
                    if !whole && 8 * length < self.position + 3 + HEADER_BITS {
                        return Ok(Pause::Input);
                    }
                    self.block(input)?;
                }
                State::Stored(left) => {
                    let from = self.position / 8;
                    let count = left.min(length - from).min(output.room());
                    output.push(&input[from..from + count]);
                    self.position += 8 * count;
                    self.state = match left - count {
                        0 => self.next(),
                        left => State::Stored(left),
                    };
                    if count == 0 && left > 0 {
                        return if whole {
                            Err(BadStream::Endless)
                        } else {
                            Ok(Pause::Input)
                        };
                    }
                }
                State::Codes => {
                    // What stands behind the input may be read where nothing comes there: then it is found that it was.
                    let end = if whole { input.len() } else { length };
                    if self.position / 8 + MARGIN + 8 > end {
                        return if whole {
                            Err(BadStream::Endless)
                        } else {
                            Ok(Pause::Input)
                        };
                    }
                    if self.codes(&input[..end], output)? {
                        self.state = self.next();
                    }
                }
            }
        }
        Err(BadStream::Endless)
    }

    /// Where it goes on behind a block.
    fn next(&self) -> State {
        if self.last { State::End } else { State::Block }
    }

    /// The header of a block (RFC 1951 section 3.2.3).
    fn block(&mut self, input: &mut [u8]) -> Result<(), BadStream> {
        let start = self.position;
        let mut bits = Bits::new(input, start);
        self.last = bits.take(1) == 1;
        self.state = match bits.take(2) {
            0 => {
                bits.at = bits.at.next_multiple_of(8);
                let length = bits.take(16);
                if bits.take(16) != !length & 0xffff {
                    self.position = bits.at;
                    return Err(BadStream::Broken);
                }
                State::Stored(length as usize)
            }
            1 => {
                self.tables.fixed();
                State::Codes
            }
            2 => {
                let codes = self.tables.read(&mut bits);
                self.position = bits.at;
                codes.ok_or(BadStream::Broken)?;
                State::Codes
            }
            _ => return Err(BadStream::Broken),
        };
        self.position = bits.at;
        if self.last {
            input[start / 8] &= !(1 << (start % 8));
        }
        Ok(())
    }

    /// Symbols, until the block ends, which it tells, or `input` or the room in `output` may not do for another one.
    fn codes(&mut self, input: &[u8], output: &mut Output) -> Result<bool, BadStream> {
        #[cfg(target_arch = "x86_64")]
        if std::arch::is_x86_feature_detected!("bmi1") && std::arch::is_x86_feature_detected!("bmi2") {
            // SAFETY: the processor has these instructions.
            return unsafe { self.codes_bmi2(input, output) };
        }
        self.decode(input, output)
    }

    /// The same, with shifts that need no particular register.
    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "bmi1,bmi2")]
    fn codes_bmi2(&mut self, input: &[u8], output: &mut Output) -> Result<bool, BadStream> {
        self.decode(input, output)
    }

    #[inline(always)]
    fn decode(&mut self, input: &[u8], output: &mut Output) -> Result<bool, BadStream> {
        let codes = &*self.tables.codes;
        let literal = |bits: u64| codes.literals[(bits & ((1 << LITERAL_BITS) - 1)) as usize];

        // What is unchecked relies on three things. An iteration fills three times at most, by seven bytes each, and begins
        // `MARGIN` bytes before the end or earlier: every word is within `input`. It begins with room left, and writes
        // at most OVERRUN bytes, which stand behind the room. A match reaches at most to `floor`.
        assert!(input.len() >= self.position / 8 + MARGIN + 8);
        assert!(output.from + PIECE + OVERRUN <= output.bytes.len() && output.floor <= output.filled);
        let first = input.as_ptr();
        let stop = first.wrapping_add(input.len() - MARGIN);
        let mut next = first.wrapping_add(self.position / 8);
        let begin = output.bytes.as_mut_ptr();
        let floor = begin.wrapping_add(output.floor);
        let limit = begin.wrapping_add(output.from + PIECE);
        let mut to = begin.wrapping_add(output.filled);

        let mut bits = 0u64;
        let mut count = 0u32;
        // At least 56 bits; above `count` are those that the next fill sets again.
        macro_rules! fill {
            () => {
                // SAFETY: `next` is at least eight bytes before the end of `input`.
                bits |= unsafe { u64::from_le(next.cast::<u64>().read_unaligned()) } << (count & 63);
                next = next.wrapping_add((count as usize >> 3 & 7) ^ 7);
                count |= 56;
            };
        }
        macro_rules! skip {
            ($entry:expr) => {
                bits >>= $entry & 0x3f;
                count = count.wrapping_sub($entry & 0xff);
            };
        }
        macro_rules! put {
            ($entry:expr) => {
                // SAFETY: there is room, and three literals are within OVERRUN.
                unsafe { to.write(($entry >> 16) as u8) };
                to = to.wrapping_add(1);
            };
        }
        fill!();
        let skipped = (self.position % 8) as u32;
        bits >>= skipped;
        count -= skipped;
        fill!();

        let mut entry = literal(bits);
        let outcome = loop {
            // At least 56 bits are there, and `entry` is what they begin with.
            if next > stop || to >= limit {
                break Ok(false);
            }
            let mut before = bits;
            skip!(entry);
            // Two literals of the first table and a third symbol, of 20 bits at most, leave 14.
            if entry & LITERAL != 0 {
                put!(entry);
                entry = literal(bits);
                before = bits;
                skip!(entry);
                if entry & LITERAL != 0 {
                    put!(entry);
                    entry = literal(bits);
                    before = bits;
                    skip!(entry);
                    if entry & LITERAL != 0 {
                        put!(entry);
                        fill!();
                        entry = literal(bits);
                        continue;
                    }
                }
            }
            if entry & SPECIAL != 0 {
                if entry & (END | WRONG) == 0 {
                    entry = codes.literals[second(entry, bits) % codes.literals.len()];
                    before = bits;
                    skip!(entry);
                    if entry & LITERAL != 0 {
                        put!(entry);
                        fill!();
                        entry = literal(bits);
                        continue;
                    }
                }
                if entry & END != 0 {
                    break Ok(true);
                }
                if entry & WRONG != 0 {
                    break Err(BadStream::Broken);
                }
            }
            let length = value(entry, before);

            let mut away = codes.distances[(bits & ((1 << DISTANCE_BITS) - 1)) as usize];
            fill!();
            if away & SPECIAL != 0 {
                if away & WRONG == 0 {
                    skip!(away);
                    away = codes.distances[second(away, bits) % codes.distances.len()];
                }
                if away & WRONG != 0 {
                    break Err(BadStream::Broken);
                }
            }
            let distance = value(away, bits);
            skip!(away);
            if distance > to as usize - floor as usize {
                break Err(BadStream::Broken);
            }
            // What comes next is looked up while this is copied.
            entry = literal(bits);
            fill!();
            // SAFETY: the source is at or above `floor`; there was room when the iteration began, and what it has written since
            // and copies now, with the words too much, is within OVERRUN.
            unsafe { copy(to, distance, length) };
            to = to.wrapping_add(length);
        };
        output.filled = to as usize - begin as usize;
        self.position = 8 * (next as usize - first as usize) - (count & 63) as usize;
        outcome
    }
}

/// A length or a distance: its base, and the extra bits behind its code in `bits`.
#[inline(always)]
fn value(entry: Entry, bits: u64) -> usize {
    let own = bits & !(u64::MAX << (entry & 0x3f));
    (entry >> 16) as usize + (own >> (entry >> 8 & 0x3f)) as usize
}

/// Where the second table that `entry` names has the symbol of `bits`.
#[inline(always)]
fn second(entry: Entry, bits: u64) -> usize {
    (entry >> 16) as usize + (bits & !(u64::MAX << (entry >> 8 & 0xf))) as usize
}

/// Copies `length` bytes, at most 258, from `distance` before `to`, and up to 32 more behind.
///
/// # Safety
/// `distance` bytes before `to` can be read, and `length + 32` from it on written.
#[inline(always)]
unsafe fn copy(to: *mut u8, distance: usize, length: usize) {
    // SAFETY: all accesses are within what the caller promises.
    unsafe {
        let from = to.sub(distance);
        let mut at = 0;
        if distance >= 16 {
            loop {
                to.add(at).copy_from_nonoverlapping(from.add(at), 16);
                at += 16;
                if at >= length {
                    break;
                }
            }
        } else if distance == 1 {
            let word = u64::from(from.read()) * 0x0101_0101_0101_0101;
            while at < length {
                to.add(at).cast::<u64>().write_unaligned(word);
                at += 8;
            }
        } else {
            // Each word repeats what is `distance` before it, so that much of it is right.
            let step = distance.min(8);
            while at < length {
                let word = from.add(at).cast::<u64>().read_unaligned();
                to.add(at).cast::<u64>().write_unaligned(word);
                at += step;
            }
        }
    }
}

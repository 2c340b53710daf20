//! Decoding tables: the bits ahead in, a symbol's meaning and length out.
//!
//! A table has an entry for every value of its first bits; codes that are longer lead to a second table behind the first. What is
//! no code that zlib would take is refused here, so that a layer is read by everyone or made by no one.
//!
//! Source: RFC 1951 section 3.2.

/// What a code stands for and how many bits it takes.
///
/// - bits 0 to 7: how many bits are used, those of a length's or distance's extra bits included
/// - bits 8 to 11: how many of them are the code's own; in a [`SECOND`], how many bits select from the second table
/// - bits 12 to 15: the flags [`END`], [`WRONG`], [`SECOND`] and [`SPECIAL`], the last with each of the others
/// - bits 16 to 30: the literal, the base of the length or distance, or where the second table begins
/// - bit 31: [`LITERAL`]
pub(super) type Entry = u32;

pub(super) const LITERAL: Entry = 1 << 31;
pub(super) const SPECIAL: Entry = 1 << 15;
pub(super) const SECOND: Entry = 1 << 14;
pub(super) const WRONG: Entry = 1 << 13;
pub(super) const END: Entry = 1 << 12;

/// How many bits select from the first table.
pub(super) const LITERAL_BITS: u32 = 11;
pub(super) const DISTANCE_BITS: u32 = 8;
const LENGTH_BITS: u32 = 7;
/// The longest code.
const LONGEST: usize = 15;

/// The most entries that codes of up to 15 bits can need, second tables included: zlib's `enough.c` finds 2,342 for 288 symbols behind
/// 11 bits and 402 for 32 behind 8. A power of two, so that no index leaves the table.
const LITERAL_ENTRIES: usize = 4096;
const DISTANCE_ENTRIES: usize = 512;

/// Of a block's two codes.
pub(super) struct Tables {
    pub(super) codes: Box<Codes>,
    lengths: [Entry; 1 << LENGTH_BITS],
    /// Whether they are those of the fixed codes.
    fixed: bool,
}

/// The two tables, side by side.
pub(super) struct Codes {
    pub(super) literals: [Entry; LITERAL_ENTRIES],
    pub(super) distances: [Entry; DISTANCE_ENTRIES],
}

/// The order in which the lengths of the lengths' codes stand.
const ORDER: [usize; 19] = [16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15];

/// More bits than the header of a block with codes of its own takes, after its first three: 14 for counts, 19 lengths of 3 bits, and 7 bits
/// at most for each of 316 codes, since a repetition costs less than what it stands for.
pub(super) const HEADER_BITS: usize = 14 + 19 * 3 + 316 * 7 + 64;

impl Tables {
    pub(super) fn new() -> Self {
        Self {
            codes: Box::new(Codes {
                literals: [0; LITERAL_ENTRIES],
                distances: [0; DISTANCE_ENTRIES],
            }),
            lengths: [0; 1 << LENGTH_BITS],
            fixed: false,
        }
    }

    /// The codes of block type 1 (RFC 1951 section 3.2.6).
    pub(super) fn fixed(&mut self) {
        if self.fixed {
            return;
        }
        let mut lengths = [8; 288];
        lengths[144..256].fill(9);
        lengths[256..280].fill(7);
        fill(&mut self.codes.literals, LITERAL_BITS, &lengths, literal);
        fill(&mut self.codes.distances, DISTANCE_BITS, &[5; 32], distance);
        self.fixed = true;
    }

    /// Reads the codes of a block of type 2 (RFC 1951 section 3.2.7); none if they are no codes.
    pub(super) fn read(&mut self, bits: &mut Bits<'_>) -> Option<()> {
        self.fixed = false;
        let literal_count = bits.take(5) as usize + 257;
        let distance_count = bits.take(5) as usize + 1;
        let length_count = bits.take(4) as usize + 4;
        if literal_count > 286 || distance_count > 30 {
            return None;
        }
        let mut of_lengths = [0; 19];
        for place in &ORDER[..length_count] {
            of_lengths[*place] = bits.take(3) as u8;
        }
        // zlib takes a code of a single bit for literals and distances only.
        if fill(&mut self.lengths, LENGTH_BITS, &of_lengths, |symbol| symbol << 16) != Code::Complete {
            return None;
        }
        // What a repetition writes too much is refused below.
        let mut lengths = [0u8; 286 + 30 + 138];
        let count = literal_count + distance_count;
        let mut at = 0;
        while at < count {
            let entry = self.lengths[bits.ahead(LENGTH_BITS) as usize];
            bits.skip(entry & 15);
            let (value, times) = match entry >> 16 {
                length @ 0..16 => {
                    lengths[at] = length as u8;
                    at += 1;
                    continue;
                }
                16 => (*lengths.get(at.wrapping_sub(1))?, 3 + bits.take(2)),
                17 => (0, 3 + bits.take(3)),
                _ => (0, 11 + bits.take(7)),
            };
            lengths[at..at + times as usize].fill(value);
            at += times as usize;
        }
        let literals = &lengths[..literal_count];
        let distances = &lengths[literal_count..count];
        let whole = at == count
            && lengths[256] != 0
            && fill(&mut self.codes.literals, LITERAL_BITS, literals, literal) != Code::Wrong
            && fill(&mut self.codes.distances, DISTANCE_BITS, distances, distance) != Code::Wrong;
        whole.then_some(())
    }
}

/// A literal's, a length's or the end's entry, but for the code's own bits (RFC 1951 section 3.2.5).
fn literal(symbol: u32) -> Entry {
    match symbol {
        0..256 => LITERAL | symbol << 16,
        256 => SPECIAL | END,
        257..265 => (symbol - 254) << 16,
        265..285 => {
            let extra = (symbol - 261) / 4;
            let base = 3 + ((4 + (symbol - 265) % 4) << extra);
            base << 16 | extra
        }
        285 => 258 << 16,
        _ => SPECIAL | WRONG,
    }
}

fn distance(symbol: u32) -> Entry {
    match symbol {
        0..4 => (symbol + 1) << 16,
        4..30 => {
            let extra = symbol / 2 - 1;
            let base = 1 + ((2 + symbol % 2) << extra);
            base << 16 | extra
        }
        _ => SPECIAL | WRONG,
    }
}

/// What codes of some lengths are together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Code {
    Complete,
    /// None, or one of one bit: the rest of the table is wrong.
    Few,
    Wrong,
}

/// Fills `table`, whose first part is selected by `first` bits, for codes of these lengths, one for each symbol, 0 for none; `entry` says what a
/// symbol stands for.
fn fill(table: &mut [Entry], first: u32, lengths: &[u8], entry: impl Fn(u32) -> Entry) -> Code {
    let mut counts = [0usize; LONGEST + 1];
    for length in lengths {
        counts[usize::from(*length)] += 1;
    }
    counts[0] = 0;
    let mut places = [0usize; LONGEST + 2];
    let mut space = 0;
    for length in 1..=LONGEST {
        places[length + 1] = places[length] + counts[length];
        space = 2 * space + counts[length];
    }
    let used = places[LONGEST + 1];
    // Symbols by the length of their codes, then by their number: the order of the codes.
    let mut symbols = [0u16; 320];
    for (symbol, length) in lengths.iter().enumerate() {
        if *length > 0 {
            symbols[places[usize::from(*length)]] = symbol as u16;
            places[usize::from(*length)] += 1;
        }
    }
    let with = |symbol: u16, bits: usize| {
        let entry = entry(u32::from(symbol));
        // Extra bits stand in the low byte already.
        entry + (bits as u32) + ((bits as u32) << 8)
    };
    let all = 1usize << first;
    if space != 1 << LONGEST {
        table[..all].fill(SPECIAL | WRONG);
        if used == 1 && counts[1] == 1 {
            for place in table[..all].iter_mut().step_by(2) {
                *place = with(symbols[0], 1);
            }
            return Code::Few;
        }
        return if used == 0 { Code::Few } else { Code::Wrong };
    }
    // Codes come in order, read from their last bit (they stand in the stream from their first, which is therefore the lowest here).
    let mut code = 0usize;
    let mut length = 1;
    let mut filled = 2usize;
    let mut next = 0;
    let longest_here = (first as usize).min(LONGEST);
    while length <= longest_here {
        for _ in 0..counts[length] {
            table[code] = with(symbols[next], length);
            next += 1;
            code = following(code, filled);
        }
        if length == longest_here {
            break;
        }
        // A bit more selects: what was decided without it holds for both its values.
        table.copy_within(..filled, filled);
        filled *= 2;
        length += 1;
    }
    // What is longer: for each value of the first bits, a table behind.
    let mut end = all;
    let mut prefix = usize::MAX;
    let mut start = 0;
    for length in longest_here + 1..=LONGEST {
        for taken in 0..counts[length] {
            if code & (all - 1) != prefix {
                prefix = code & (all - 1);
                start = end;
                // As many bits as the codes that share these first ones need: they fill their table.
                let mut more = length - first as usize;
                let mut room = counts[length] - taken;
                while room < 1 << more {
                    more += 1;
                    room = 2 * room + counts[first as usize + more];
                }
                end = start + (1 << more);
                table[prefix] = SPECIAL | SECOND | (start as u32) << 16 | (more as u32) << 8 | first;
            }
            let own = length - first as usize;
            let entry = with(symbols[next], own);
            for place in table[start + (code >> first)..end].iter_mut().step_by(1 << own) {
                *place = entry;
            }
            next += 1;
            code = following(code, 1 << length);
        }
    }
    Code::Complete
}

/// The code after `code` among those below `end`, a power of two, both read from their last bit.
fn following(code: usize, end: usize) -> usize {
    let clear = code ^ (end - 1);
    if clear == 0 {
        return code;
    }
    let bit = 1 << clear.ilog2();
    code & (bit - 1) | bit
}

/// Bits of a slice; behind its end are zeros.
pub(super) struct Bits<'a> {
    bytes: &'a [u8],
    /// In bits, from the slice's start.
    pub(super) at: usize,
}

impl<'a> Bits<'a> {
    pub(super) fn new(bytes: &'a [u8], at: usize) -> Self {
        Self { bytes, at }
    }

    /// The next `count` bits, at most 16.
    pub(super) fn ahead(&self, count: u32) -> u32 {
        let from = self.bytes.get(self.at / 8..).unwrap_or_default();
        let word = match from.first_chunk::<4>() {
            Some(word) => u32::from_le_bytes(*word),
            None => from
                .iter()
                .rev()
                .fold(0, |word, byte| word << 8 | u32::from(*byte)),
        };
        word >> (self.at % 8) & ((1 << count) - 1)
    }

    pub(super) fn skip(&mut self, count: u32) {
        self.at += count as usize;
    }

    pub(super) fn take(&mut self, count: u32) -> u32 {
        let bits = self.ahead(count);
        self.skip(count);
        bits
    }
}

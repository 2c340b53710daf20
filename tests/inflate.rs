//! Inflating: what zlib takes comes out as zlib has it and ends where it says, however it is cut; what zlib refuses is refused.

use std::collections::BTreeMap;

use mlrails::deflate::BitWriter;
use mlrails::inflate::{BadStream, Inflater, Output, PADDING, PIECE, Pause};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::support::store::amount;
use crate::support::wheels::deflate;

/// What `stream` holds and at which bit it ends; read in pieces whose lengths `cut` says.
fn inflated(stream: &[u8], mut cut: impl FnMut() -> usize) -> Result<(Vec<u8>, usize), BadStream> {
    let mut inflater = Inflater::new();
    let mut output = Output::new();
    // What was there before is nothing that a stream may refer to, and what was not taken stays.
    output.push(b"before");
    inflater.begin(&mut output);
    let mut content = Vec::new();
    let mut input: Vec<u8> = Vec::new();
    let (mut read, mut gone) = (0, 0);
    loop {
        let count = cut().min(stream.len() - read);
        input.extend_from_slice(&stream[read..read + count]);
        read += count;
        let length = input.len();
        // Nothing may come of what stands there.
        input.extend([0xff; PADDING]);
        let ended = loop {
            match inflater.run(&mut input, read == stream.len(), &mut output)? {
                Pause::Output => {
                    assert!(output.len() >= PIECE);
                    content.extend_from_slice(output.bytes());
                    match content.len() % 2 {
                        0 => output.clear(),
                        _ => drop(output.exchange(Output::new())),
                    }
                }
                Pause::Input => break false,
                Pause::End => break true,
            }
        };
        input.truncate(length);
        let used = inflater.position() / 8;
        if ended {
            content.extend_from_slice(output.bytes());
            let content = content.split_off(b"before".len());
            return Ok((content, 8 * gone + inflater.position()));
        }
        assert!(read < stream.len(), "it asks for more than there is");
        input.drain(..used);
        inflater.forget(used);
        gone += used;
    }
}

/// What zlib-rs makes of it: the content, and how many bytes it used.
fn expected(stream: &[u8]) -> Option<(Vec<u8>, usize)> {
    let mut inflate = flate2::Decompress::new(false);
    let mut content = Vec::new();
    loop {
        content.reserve(PIECE);
        let before = (inflate.total_in(), content.len());
        let rest = &stream[before.0 as usize..];
        let status = inflate
            .decompress_vec(rest, &mut content, flate2::FlushDecompress::None)
            .ok()?;
        if status == flate2::Status::StreamEnd {
            return Some((content, inflate.total_in() as usize));
        }
        if before == (inflate.total_in(), content.len()) {
            return None;
        }
    }
}

/// Both agree, however the stream is cut. Whether it is one.
#[track_caller]
fn check(stream: &[u8], random: &mut StdRng) -> bool {
    let whole = inflated(stream, || usize::MAX);
    let most = [1, 7, 300, 5000, 100_000][random.gen_range(0..5)];
    let most = most.max(stream.len() / 2000);
    let cut = inflated(stream, || random.gen_range(1..=most));
    assert!(whole == cut, "it depends on how it is read: {}", shown(stream));
    match (whole, expected(stream)) {
        (Ok((content, bits)), Some((wanted, used))) => {
            assert!(content == wanted, "the contents differ: {}", shown(stream));
            assert_eq!(bits.div_ceil(8), used, "{}", shown(stream));
            true
        }
        (Err(_), None) => false,
        (Ok(_), None) => panic!("zlib refuses it: {}", shown(stream)),
        (Err(error), Some(_)) => panic!("{}: {}", error.rule(), shown(stream)),
    }
}

fn shown(stream: &[u8]) -> String {
    let bytes: String = stream
        .iter()
        .take(400)
        .map(|byte| format!("{byte:02x}"))
        .collect();
    format!("{} bytes, {bytes}", stream.len())
}

/// Lengths of a complete code for `symbols`, at most `longest` bits each.
fn code(symbols: &[usize], longest: u32, random: &mut StdRng) -> Vec<u32> {
    if let [_] = symbols {
        return vec![1];
    }
    let mut lengths = vec![0];
    while lengths.len() < symbols.len() {
        let at = random.gen_range(0..lengths.len());
        let room = u64::from(longest - lengths[at]);
        if room > 0 && random.gen_bool(0.9) {
            lengths[at] += 1;
            lengths.push(lengths[at]);
        } else if lengths.iter().all(|length| *length == longest) {
            panic!("more symbols than codes");
        }
    }
    // By chance, not by place.
    for index in (1..lengths.len()).rev() {
        lengths.swap(index, random.gen_range(0..=index));
    }
    lengths
}

/// The canonical codes of `symbols` with these lengths (RFC 1951 section 3.2.2), as the bit writer wants them.
fn canonical(symbols: &[usize], lengths: &[u32]) -> BTreeMap<usize, (u32, u32)> {
    let mut order: Vec<(u32, usize)> = lengths.iter().copied().zip(symbols.iter().copied()).collect();
    order.sort_unstable();
    let (mut next, mut before) = (0u32, 0);
    let mut codes = BTreeMap::new();
    for (length, symbol) in order {
        next <<= length - before;
        before = length;
        codes.insert(symbol, (next.reverse_bits() >> (32 - length), length));
        next += 1;
    }
    codes
}

/// `count` different symbols below `below`, in order, `must` among them.
fn some(count: usize, below: usize, must: Option<usize>, random: &mut StdRng) -> Vec<usize> {
    let mut chosen: std::collections::BTreeSet<usize> = must.into_iter().collect();
    while chosen.len() < count {
        chosen.insert(random.gen_range(0..below));
    }
    chosen.into_iter().collect()
}

/// The header of a block with codes of its own (RFC 1951 section 3.2.7), lengths repeated where that is possible and by chance.
fn header(out: &mut BitWriter, literals: &[u32], distances: &[u32], random: &mut StdRng) {
    let all: Vec<u32> = literals.iter().chain(distances).copied().collect();
    let mut words: Vec<(usize, u32, u32)> = Vec::new();
    let mut at = 0;
    while at < all.len() {
        let run = all[at..].iter().take_while(|length| **length == all[at]).count();
        let repeats = random.gen_bool(0.8);
        if repeats && all[at] == 0 && run >= 11 {
            let run = run.min(138);
            words.push((18, run as u32 - 11, 7));
            at += run;
        } else if repeats && all[at] == 0 && run >= 3 {
            let run = run.min(10);
            words.push((17, run as u32 - 3, 3));
            at += run;
        } else if repeats && at > 0 && all[at - 1] == all[at] && run >= 3 {
            let run = run.min(6);
            words.push((16, run as u32 - 3, 2));
            at += run;
        } else {
            words.push((all[at] as usize, 0, 0));
            at += 1;
        }
    }
    let mut used: Vec<usize> = words.iter().map(|word| word.0).collect();
    // One symbol more than is needed, so that a code of a single one is complete too.
    used.extend([0, 18]);
    used.sort_unstable();
    used.dedup();
    let lengths = code(&used, 7, random);
    let codes = canonical(&used, &lengths);
    out.put(literals.len() as u32 - 257, 5);
    out.put(distances.len() as u32 - 1, 5);
    const ORDER: [usize; 19] = [16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15];
    out.put(15, 4);
    for symbol in ORDER {
        out.put(codes.get(&symbol).map_or(0, |code| code.1), 3);
    }
    for (symbol, extra, bits) in words {
        let (value, length) = codes[&symbol];
        out.put(value, length);
        out.put(extra, bits);
    }
}

/// A stream of random blocks: stored, with fixed codes, with codes of their own; matches as far and as long as there can be.
fn stream(random: &mut StdRng) -> Vec<u8> {
    let mut out = BitWriter::default();
    let mut written = 0usize;
    let blocks = random.gen_range(1..5);
    for block in 1..=blocks {
        let last = u32::from(block == blocks);
        let kind = random.gen_range(0..3);
        out.put(last, 1);
        out.put(kind, 2);
        if kind == 0 {
            while !out.is_aligned() {
                out.put(random.gen_range(0..2), 1);
            }
            let length = [0, 1, 300, 65_535][random.gen_range(0..4)];
            out.put(length, 16);
            out.put(!length & 0xffff, 16);
            for _ in 0..length {
                out.put(u32::from(random.r#gen::<u8>()), 8);
            }
            written += length as usize;
            continue;
        }
        let (literals, distances) = if kind == 1 {
            let lengths = |symbol: usize| match symbol {
                144..256 => 9,
                256..280 => 7,
                _ => 8,
            };
            let all: Vec<usize> = (0..288).collect();
            let of: Vec<u32> = all.iter().map(|symbol| lengths(*symbol)).collect();
            let distances: Vec<usize> = (0..32).collect();
            (canonical(&all, &of), canonical(&distances, &[5; 32]))
        } else {
            let count = [2, 30, 200, 286][random.gen_range(0..4)];
            let symbols = some(count, 286, Some(256), random);
            let of = code(&symbols, 15, random);
            let mut lengths = vec![0; 257.max(symbols[symbols.len() - 1] + 1)];
            for (symbol, length) in symbols.iter().zip(&of) {
                lengths[*symbol] = *length;
            }
            let far = some([1, 2, 8, 30][random.gen_range(0..4)], 30, None, random);
            let far_of = code(&far, 15, random);
            let mut far_lengths = vec![0; far[far.len() - 1] + 1];
            for (symbol, length) in far.iter().zip(&far_of) {
                far_lengths[*symbol] = *length;
            }
            header(&mut out, &lengths, &far_lengths, random);
            (canonical(&symbols, &of), canonical(&far, &far_of))
        };
        let usable: Vec<usize> = literals.keys().copied().filter(|symbol| *symbol < 286).collect();
        for _ in 0..[0, 1, 50, 3000][random.gen_range(0..4)] {
            let symbol = usable[random.gen_range(0..usable.len())];
            if symbol == 256 {
                continue;
            }
            if symbol < 256 {
                let (value, bits) = literals[&symbol];
                out.put(value, bits);
                written += 1;
                continue;
            }
            // Mostly a distance that is there; what is not is an error, and one that is found is wanted too.
            let fits: Vec<usize> = distances
                .keys()
                .copied()
                .filter(|symbol| *symbol < 30 && base(*symbol) <= written)
                .collect();
            let away = match fits.is_empty() {
                true => continue,
                false => fits[random.gen_range(0..fits.len())],
            };
            let (value, bits) = literals[&symbol];
            out.put(value, bits);
            let extra = match symbol {
                265..285 => (symbol as u32 - 261) / 4,
                _ => 0,
            };
            let more = random.gen_range(0..1 << extra);
            out.put(more, extra);
            written += match symbol {
                257..265 => symbol - 254,
                265..285 => 3 + ((4 + (symbol - 265) % 4) << extra) + more as usize,
                _ => 258,
            };
            let (value, bits) = distances[&away];
            out.put(value, bits);
            let extra = if away < 4 { 0 } else { away as u32 / 2 - 1 };
            let most = ((written.min(32_768) - base(away)) as u32).min((1 << extra) - 1);
            out.put(random.gen_range(0..=most), extra);
        }
        let (value, bits) = literals[&256];
        out.put(value, bits);
    }
    while !out.is_aligned() {
        out.put(1, 1);
    }
    out.take(Vec::new())
}

/// The nearest distance of a code (RFC 1951 section 3.2.5).
fn base(symbol: usize) -> usize {
    match symbol {
        0..4 => symbol + 1,
        _ => 1 + ((2 + symbol % 2) << (symbol / 2 - 1)),
    }
}

#[test]
fn random_streams_come_out_as_zlib_has_them() {
    let mut random = StdRng::seed_from_u64(1);
    let mut taken = 0;
    let cases = amount(300, 20_000);
    for _ in 0..cases {
        taken += u32::from(check(&stream(&mut random), &mut random));
    }
    // Some reach before their start by a little: a length written first makes room that is not there yet.
    assert!(taken > cases / 2, "only {taken} of {cases} were streams");
}

#[test]
fn damaged_streams_are_refused_where_zlib_refuses_them() {
    let mut random = StdRng::seed_from_u64(2);
    let text = include_bytes!("inflate.rs");
    let (mut taken, mut refused) = (0, 0);
    for case in 0..amount(1_500, 100_000) {
        let mut bytes = match case % 3 {
            0 => deflate(&text[..random.gen_range(0..text.len())], random.gen_range(0..10)),
            _ => stream(&mut random),
        };
        for _ in 0..random.gen_range(1..4) {
            if bytes.is_empty() {
                break;
            }
            // Near the start more often: there are the codes.
            let at = match random.gen_bool(0.5) {
                true => random.gen_range(0..bytes.len().min(100)),
                false => random.gen_range(0..bytes.len()),
            };
            match random.gen_range(0..4) {
                0 => bytes[at] ^= 1 << random.gen_range(0..8),
                1 => bytes[at] = random.r#gen(),
                2 => bytes.truncate(at),
                _ => bytes.insert(at, random.r#gen()),
            }
        }
        match check(&bytes, &mut random) {
            true => taken += 1,
            false => refused += 1,
        }
    }
    assert!(taken > 0 && refused > 0, "{taken} were taken, {refused} refused");
}

#[test]
fn noise_is_no_stream_or_zlib_says_so_too() {
    let mut random = StdRng::seed_from_u64(3);
    for _ in 0..amount(20_000, 2_000_000) {
        let length = random.gen_range(0..80);
        let mut bytes: Vec<u8> = (0..length).map(|_| random.r#gen()).collect();
        // Two thirds would be stored blocks whose lengths contradict each other, or of no kind.
        if let Some(first) = bytes.first_mut() {
            *first = *first & !0b110 | [0b010, 0b100][random.gen_range(0..2)];
        }
        check(&bytes, &mut random);
    }
}

#[test]
fn long_runs_and_windows_cross_every_buffer() {
    let mut random = StdRng::seed_from_u64(4);
    let noise: Vec<u8> = (0..32_768).map(|_| random.r#gen()).collect();
    let zeros = vec![0; 3 * PIECE];
    let periodic: Vec<u8> = noise.iter().cycle().take(5 * PIECE + 17).copied().collect();
    for content in [&noise, &zeros, &periodic, &Vec::new()] {
        for level in [0, 1, 6, 9] {
            assert!(check(&deflate(content, level), &mut random));
        }
    }
    for period in 1..40 {
        let short: Vec<u8> = noise[..period].iter().cycle().take(5_000).copied().collect();
        assert!(check(&deflate(&short, 9), &mut random));
    }
}

#[test]
fn only_the_last_block_s_mark_is_cleared() {
    let mut random = StdRng::seed_from_u64(5);
    for _ in 0..amount(100, 5_000) {
        let stream = stream(&mut random);
        let Ok((content, bits)) = inflated(&stream, || usize::MAX) else {
            continue;
        };
        let mut open = stream.clone();
        open.resize(stream.len() + PADDING, 0);
        let (mut inflater, mut output) = (Inflater::new(), Output::new());
        inflater.begin(&mut output);
        while inflater.run(&mut open, true, &mut output).unwrap() == Pause::Output {
            output.clear();
        }
        assert_eq!(inflater.position(), bits);
        open.truncate(stream.len());
        let changed: u32 = open
            .iter()
            .zip(&stream)
            .map(|(one, other)| (one ^ other).count_ones())
            .sum();
        assert_eq!(changed, 1);
        // A block behind it ends what is open now.
        let mut out = BitWriter::default();
        out.raw(&open[..bits / 8]);
        if bits % 8 > 0 {
            out.put(
                u32::from(open[bits / 8]) & ((1 << (bits % 8)) - 1),
                bits as u32 % 8,
            );
        }
        out.end();
        assert_eq!(expected(&out.take(Vec::new())).unwrap().0, content);
    }
}

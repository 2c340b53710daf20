//! Splicing: whatever deflate stream a wheel holds, the layer holds its content, and every reader reads it.

use std::io::{Read, Write};
use std::path::Path;
use std::process::Command;

use mlrails::deflate::BitWriter;
use mlrails::digest::Digest;
use mlrails::layers::recipe::Form;
use mlrails::layers::splice::{SpliceError, Spliced, Threads, splice};
use mlrails::python::archive::Method;
use mlrails::python::wheel::{ContentCheck, Entry};
use proptest::prelude::*;

use crate::support::store::{amount, covered};
use crate::support::wheels::deflate;

/// One entry's compressed bytes, how they are kept, and what they stand for.
type Piece<'a> = (&'a [u8], Method, &'a [u8]);

fn layer(pieces: &[Piece<'_>], threads: Threads) -> Result<(Spliced, Vec<u8>), SpliceError> {
    splice(Vec::new(), Form::Gzip, 0, threads, |splicer| {
        splicer.directory("opt", 0o755)?;
        for (index, (stream, method, content)) in pieces.iter().enumerate() {
            let entry = Entry {
                name: format!("f{index}"),
                method: *method,
                crc32: crc32fast::hash(content),
                compressed_size: stream.len() as u64,
                size: content.len() as u64,
                data_offset: 0,
                executable: false,
                digest: Some(Digest::of(content)),
            };
            splicer.entry(
                &format!("opt/f{index}"),
                0o644,
                "a-1-py3-none-any.whl",
                *stream,
                ContentCheck::new(&entry),
            )?;
        }
        splicer.file("opt/last", 0o755, b"generated")
    })
}

/// The layer of `pieces`, which must come out as they went in.
#[track_caller]
fn check(pieces: &[Piece<'_>]) -> Vec<u8> {
    let (spliced, gzip) = layer(pieces, Threads::Two).unwrap();
    let alone = layer(pieces, Threads::One).unwrap();
    assert!(alone == (spliced, gzip.clone()), "it depends on the threads");
    let mut tar = Vec::new();
    let mut decoder = flate2::bufread::GzDecoder::new(&gzip[..]);
    decoder.read_to_end(&mut tar).unwrap();
    assert!(
        decoder.into_inner().is_empty(),
        "one member, and nothing behind it"
    );
    assert_eq!(
        (Digest::of(&tar), tar.len() as u64),
        (spliced.diff_id, spliced.tar_size)
    );
    let mut archive = tar::Archive::new(&tar[..]);
    let mut found = Vec::new();
    for entry in archive.entries().unwrap() {
        let mut content = Vec::new();
        entry.unwrap().read_to_end(&mut content).unwrap();
        found.push(content);
    }
    let contents = pieces.iter().map(|(_, _, content)| content.to_vec());
    let expected: Vec<Vec<u8>> = [Vec::new()]
        .into_iter()
        .chain(contents)
        .chain([b"generated".to_vec()])
        .collect();
    assert!(found == expected, "the contents differ");
    gzip
}

#[track_caller]
fn refused(stream: &[u8], content: &[u8], rule: &str) {
    match layer(&[(stream, Method::Deflated, content)], Threads::One) {
        Err(SpliceError::Entry { wheel, entry, source }) => {
            assert_eq!((wheel.as_str(), entry.as_str()), ("a-1-py3-none-any.whl", "f0"));
            assert!(source.to_string().contains(rule), "{source} is not about: {rule}");
        }
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("accepted, and should be refused: {rule}"),
    }
}

fn noise(length: usize, mut state: u32) -> Vec<u8> {
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state as u8
    };
    (0..length).map(|_| next()).collect()
}

/// A fixed-Huffman code for a literal or length symbol, as the bit writer wants it (RFC 1951 section 3.2.6).
fn symbol(out: &mut BitWriter, symbol: u16) {
    let (code, bits) = match symbol {
        0..=143 => (0x30 + symbol, 8),
        144..=255 => (0x190 + symbol - 144, 9),
        256..=279 => (symbol - 256, 7),
        _ => (0xc0 + symbol - 280, 8),
    };
    out.put(u32::from(code.reverse_bits() >> (16 - bits)), bits);
}

/// A match of 258 bytes.
fn longest_match(out: &mut BitWriter, distance: u32) {
    symbol(out, 285);
    let code = |code: u8| u32::from(code.reverse_bits() >> 3);
    match distance {
        1 => out.put(code(0), 5),
        32_768 => {
            out.put(code(29), 5);
            out.put(32_768 - 24_577, 13);
        }
        _ => panic!("not needed"),
    }
}

#[test]
fn streams_of_every_shape_come_out_whole() {
    use Method::{Deflated, Stored};
    let text = include_str!("splice.rs").repeat(90);
    let text = text.as_bytes();
    let noise = noise(700_000, 1);
    let fast = deflate(text, 1);
    let best = deflate(text, 9);
    let stored = deflate(&noise, 0);
    let blocks = deflate(&noise, 6);
    let empty = deflate(b"", 6);
    let zeros = vec![0; 3_000_000];
    let long = deflate(&zeros, 9);
    check(&[
        (&empty, Deflated, b""),
        (&fast, Deflated, text),
        (&best, Deflated, text),
        (b"", Stored, b""),
        (&noise, Stored, &noise),
        (&stored, Deflated, &noise),
        (&blocks, Deflated, &noise),
        (&long, Deflated, &zeros),
        (&empty, Deflated, b""),
        (b"x", Stored, b"x"),
    ]);
    check(&[]);
}

#[test]
fn the_last_header_is_found_wherever_it_falls() {
    // Around the size of the buffers that entries are read with, and at every bit of a byte.
    for bytes in 262_130..262_150 {
        for empty_blocks in 0..4 {
            let head = noise(65_000, 7);
            let tail = noise(bytes - 4 * 65_005, 9);
            let mut out = BitWriter::default();
            let mut content = Vec::new();
            for piece in [&head[..], &head, &head, &head, &tail] {
                out.stored(piece);
                content.extend_from_slice(piece);
            }
            // Each moves what follows by ten bits.
            for _ in 0..empty_blocks {
                out.put(0b010, 3);
                symbol(&mut out, 256);
            }
            out.put(0b011, 3);
            symbol(&mut out, u16::from(b'!'));
            content.push(b'!');
            symbol(&mut out, 256);
            while !out.is_aligned() {
                out.put(1, 1);
            }
            let stream = out.take(Vec::new());
            check(&[
                (&stream, Method::Deflated, &content),
                (&stream, Method::Deflated, &content),
            ]);
        }
    }
}

#[test]
fn a_match_reaches_to_its_entrys_start_and_no_further() {
    let build = |length: usize, distance: u32| {
        let start = noise(length, 5);
        let mut out = BitWriter::default();
        out.stored(&start);
        out.put(0b011, 3);
        longest_match(&mut out, distance);
        symbol(&mut out, 256);
        while !out.is_aligned() {
            out.put(0, 1);
        }
        let from = length.saturating_sub(distance as usize);
        let mut content = start;
        for at in from..from + 258 {
            content.push(content.get(at).copied().unwrap_or(0));
        }
        (out.take(Vec::new()), content)
    };
    let (stream, content) = build(32_768, 32_768);
    check(&[(&stream, Method::Deflated, &content)]);
    // One byte further is the tar header, which the wheel has no business with.
    let (stream, content) = build(32_767, 32_768);
    refused(&stream, &content, "deflate stream is broken");
    let (stream, content) = build(0, 1);
    refused(&stream, &content, "deflate stream is broken");
}

#[test]
fn what_is_not_one_whole_stream_of_that_content_is_refused() {
    let text = include_bytes!("splice.rs");
    let stream = deflate(text, 6);
    for behind in [&b"\0"[..], b"more", &[0; 300_000]] {
        refused(&[&stream, behind].concat(), text, "bytes stand behind the end");
    }
    for length in [0, 1, 2, stream.len() / 2, stream.len() - 1] {
        refused(&stream[..length], text, "has no end");
    }
    refused(&[&stream[..100], &[0xff; 40], &stream[140..]].concat(), text, "");
    refused(&deflate(b"another", 6), b"content", "CRC");
    refused(
        &deflate(b"longer than it says", 6),
        b"longer",
        "longer than the archive says",
    );
    refused(
        &deflate(b"short", 6),
        b"shorter than it says",
        "shorter than the archive says",
    );
    // A bomb stops at the size that was promised, not at what it expands to.
    refused(
        &deflate(&vec![0; 50_000_000], 9),
        b"small",
        "longer than the archive says",
    );
    // A stream whose bits spell block type 3.
    refused(&[0b111], b"", "deflate stream is broken");
}

#[test]
fn a_layer_is_the_same_every_time() {
    let text = include_bytes!("splice.rs");
    let stream = deflate(text, 6);
    let once = check(&[(&stream, Method::Deflated, text)]);
    assert_eq!(once, check(&[(&stream, Method::Deflated, text)]));
    let mut clear = once.clone();
    assert_eq!(
        clear.drain(..10).collect::<Vec<_>>(),
        [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255]
    );
}

#[test]
fn a_writer_that_fails_is_an_error_and_no_hang() {
    struct Full(usize);
    impl Write for Full {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0 = self
                .0
                .checked_sub(bytes.len())
                .ok_or(std::io::ErrorKind::StorageFull)?;
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let noise = noise(8_000_000, 3);
    let rooms = [0, 1000, 3_000_000];
    let cases = rooms
        .into_iter()
        .flat_map(|room| [(room, Threads::One), (room, Threads::Two)]);
    for (room, threads) in cases {
        let outcome = splice(Full(room), Form::Gzip, 0, threads, |splicer| {
            splicer.file("x", 0o644, &noise)
        });
        match outcome {
            Err(SpliceError::Write(error)) => assert_eq!(error.kind(), std::io::ErrorKind::StorageFull),
            Err(other) => panic!("{other}"),
            Ok(_) => panic!("{room} bytes were enough"),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(amount(60, 3000)))]
    #[test]
    fn any_entries_come_out_whole(
        files in prop::collection::vec((0u8..4, 0usize..90_000, 0u32..10), 0..12)
    ) {
        let contents: Vec<Vec<u8>> = files.iter().map(|(kind, length, _)| match kind {
            0 => noise(*length, *length as u32 + 1),
            1 => vec![b'a'; *length],
            2 => include_bytes!("splice.rs").iter().copied().cycle().take(*length).collect(),
            _ => noise(*length, 11).iter().map(|byte| byte & 3).collect(),
        }).collect();
        let streams: Vec<Vec<u8>> = contents.iter().zip(&files).map(|(content, (_, _, level))| deflate(content, *level)).collect();
        let pieces: Vec<Piece<'_>> = streams.iter().zip(&contents)
            .map(|(stream, content)| (&stream[..], Method::Deflated, &content[..])).collect();
        check(&pieces);
    }
}

#[test]
fn gzip_tar_and_python_read_it() {
    let text = include_str!("splice.rs").repeat(30);
    let (fast, stored) = (deflate(text.as_bytes(), 1), noise(100_000, 2));
    let gzip = check(&[
        (&fast, Method::Deflated, text.as_bytes()),
        (&stored, Method::Stored, &stored),
        (&deflate(b"", 6), Method::Deflated, b""),
    ]);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("layer.tar.gz");
    std::fs::write(&path, gzip).unwrap();
    runs("gzip", &["-t"], &path, "");
    runs(
        "tar",
        &["-tzf"],
        &path,
        "opt/\nopt/f0\nopt/f1\nopt/f2\nopt/last\n",
    );
    let script = "import sys, tarfile, hashlib\n\
                  for mode in ('r:gz', 'r|gz'):\n    \
                      with tarfile.open(sys.argv[1], mode) as archive:\n        \
                          print(*(hashlib.sha256(archive.extractfile(m).read()).hexdigest()[:8] for m in archive if m.isfile()))\n";
    let digests = [text.as_bytes(), &stored, b"", b"generated"]
        .map(|content| Digest::of(content).hex()[..8].to_owned());
    let line = digests.join(" ");
    runs("python3", &["-c", script], &path, &format!("{line}\n{line}\n"));
}

/// Runs a peer on `path`.
#[track_caller]
fn runs(program: &str, arguments: &[&str], path: &Path, expected: &str) {
    if !covered("a spliced layer's readers", &[program]) {
        return;
    }
    let output = Command::new(program).args(arguments).arg(path).output().unwrap();
    assert!(
        output.status.success(),
        "{program}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    assert_eq!(String::from_utf8_lossy(&output.stdout), expected, "{program}");
}

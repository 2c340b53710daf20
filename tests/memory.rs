//! Wheels of any size become layers within a fixed amount of memory.

use std::path::Path;
use std::process::Command;

use crate::support::peers::succeeds;
use crate::support::road::{Road, road};
use crate::support::store::amount;

/// Writes a wheel piece by piece with Python's own zipfile: FOLDER NAME HOW COUNT SIZE, for COUNT files of SIZE bytes each.
const WRITER: &str = r#"
import base64, hashlib, os, random, sys, zipfile
folder, name, how, count, size = sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4]), int(sys.argv[5])
noise = random.Random(1).randbytes(1 << 20)
class Stream:
    """What cannot be gone back in, so that sizes stand behind the data."""
    def __init__(self, file): self.file = file
    def write(self, data): return self.file.write(data)
    def flush(self): self.file.flush()
file = open(f"{folder}/{name}-1.0-py3-none-any.whl", "wb")
form = zipfile.ZIP_STORED if how == "stored" else zipfile.ZIP_DEFLATED
wheel = zipfile.ZipFile(Stream(file) if how == "descriptors" else file, "w", form, compresslevel=1)
record = []
def put(path, pieces):
    digest, length = hashlib.sha256(), 0
    with wheel.open(path, "w", force_zip64=how == "stored" or size > 1 << 30) as out:
        for piece in pieces:
            out.write(piece); digest.update(piece); length += len(piece)
    record.append(f"{path},sha256={base64.urlsafe_b64encode(digest.digest()).decode().rstrip('=')},{length}\n")
def content(number):
    left = size
    while left:
        piece = (noise[number % 1000:300000] + bytes(700000))[:left]
        left -= len(piece)
        yield piece
put(f"{name}/__init__.py", [b"x = 1\n"])
for number in range(count): put(f"{name}/d{number % 100}/f{number}.bin", content(number))
info = f"{name}-1.0.dist-info"
put(f"{info}/METADATA", [f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n".encode()])
put(f"{info}/WHEEL", [b"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"])
wheel.writestr(f"{info}/RECORD", "".join(record) + f"{info}/RECORD,,\n")
wheel.close()
"#;

/// Runs a command, and then says how many KiB of memory it had at most.
const MEASURED: &str = "import resource, subprocess, sys
code = subprocess.run(sys.argv[1:], stdout=sys.stderr).returncode
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
sys.exit(code)";

const MIB: u64 = 1 << 20;

/// What one command may take at most, in MiB.
const MOST: u64 = 200;

/// An image of the example project with a wheel of `count` files of `size` bytes each.
fn becomes_a_layer(road: &Road, name: &str, how: &str, count: u64, size: u64) {
    let scratch = tempfile::tempdir().unwrap();
    let wheels = scratch.path().join("wheels");
    std::fs::create_dir(&wheels).unwrap();
    let numbers = [count.to_string(), size.to_string()];
    succeeds(
        Command::new("python3")
            .args(["-c", WRITER])
            .arg(&wheels)
            .args([name, how])
            .args(&numbers),
    );
    let project = road.copy(scratch.path());
    let pyproject = project.join("pyproject.toml");
    let text = std::fs::read_to_string(&pyproject).unwrap();
    let text = text.replacen(
        "dependencies = [",
        &format!("dependencies = [\n    \"{name}\","),
        1,
    );
    let keep = format!("\n[tool.mlrails.dependencies]\nkeep = [\"{name}\"]\n");
    std::fs::write(&pyproject, text + &keep).unwrap();
    let lock = [&crate::support::road::LOCK[..], &["--find-links"]].concat();
    road.on(&project, &lock).args([&wheels]).run().expect(0);

    // A store of its own, so that nothing of the wheel stays in everybody's.
    let store = scratch.path().join("store");
    let command = road
        .on(&project, &["image", "--no-bytecode"])
        .env("MLRAILS_CACHE_DIR", &store)
        .env("PIP_FIND_LINKS", &wheels)
        .into_command();
    let mut measured = Command::new("python3");
    measured
        .args(["-c", MEASURED])
        .arg(command.get_program())
        .args(command.get_args())
        .env_clear()
        .envs(
            command
                .get_envs()
                .filter_map(|(name, value)| Some((name, value?))),
        );
    let peak: u64 = succeeds(&mut measured).trim().parse().unwrap();
    assert!(peak / 1024 < MOST, "{name}: {} MiB", peak / 1024);
    assert!(has_layer(&project.join("dist/churn"), name), "{name}");
}

fn has_layer(layout: &Path, name: &str) -> bool {
    let (_, config) = crate::support::road::image_of(layout);
    let lines = config["history"].as_array().unwrap();
    let is = |line: &serde_json::Value| {
        line["created_by"]
            .as_str()
            .unwrap()
            .contains(&format!("{name} 1.0"))
    };
    lines.iter().any(is)
}

#[test]
fn one_huge_file() {
    let Some(road) = road("the memory of a wheel with a huge file", &[]) else {
        return;
    };
    becomes_a_layer(
        road,
        "hugefile",
        "deflated",
        1,
        u64::from(amount(400, 3072)) * MIB,
    );
    becomes_a_layer(
        road,
        "streamed",
        "descriptors",
        1,
        u64::from(amount(20, 400)) * MIB,
    );
}

#[test]
fn many_small_files() {
    let Some(road) = road("the memory of a wheel with many files", &[]) else {
        return;
    };
    becomes_a_layer(
        road,
        "manyfiles",
        "deflated",
        u64::from(amount(30_000, 100_000)),
        10_000,
    );
}

#[test]
fn more_than_a_zip_was_made_for() {
    let Some(road) = road("a wheel with zip64 sizes", &[]) else {
        return;
    };
    // 4 GiB and a little; where time is short, the same records around less.
    let size = u64::from(amount(20, 4097)) * MIB;
    becomes_a_layer(road, "zipsixtyfour", "stored", 1, size);
}

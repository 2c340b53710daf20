//! The runtime's Python package, embedded in this binary: `mlrails_runtime/` for site-packages.

/// Each file of `templates/runtime/mlrails_runtime`, by its path below site-packages. A test compares the list with the folder.
macro_rules! files {
    ($($path:literal),* $(,)?) => {
        &[$((
            concat!("mlrails_runtime/", $path),
            include_str!(concat!("../../templates/runtime/mlrails_runtime/", $path)),
        )),*]
    };
}

/// Path and text, sorted by path.
pub const FILES: &[(&str, &str)] = files![
    "__init__.py",
    "__main__.py",
    "accelerate/__init__.py",
    "accelerate/boosters.py",
    "accelerate/features.py",
    "accelerate/models.py",
    "accelerate/plan.py",
    "accelerate/source.py",
    "accelerate/trees.py",
    "access.py",
    "batch/__init__.py",
    "batch/chunks.py",
    "batch/columnar.py",
    "batch/formats.py",
    "batch/job.py",
    "batch/judge.py",
    "batch/layout.py",
    "batch/ledger.py",
    "batch/lines.py",
    "batch/places.py",
    "batch/progress.py",
    "batch/refused.py",
    "batch/sql.py",
    "batch/stdout.py",
    "batch/text.py",
    "batch/workers.py",
    "batching.py",
    "board.py",
    "columns.py",
    "decode.py",
    "engines/__init__.py",
    "engines/drive.py",
    "engines/maker.py",
    "engines/on_dask.py",
    "engines/on_ray.py",
    "engines/pack.py",
    "engines/remote.py",
    "engines/sent.py",
    "flavours.py",
    "frame.py",
    "guard.py",
    "logs.py",
    "metrics.py",
    "openapi.py",
    "page.html",
    "page.py",
    "problem.py",
    "protocols/__init__.py",
    "protocols/kserve.py",
    "protocols/mlflow.py",
    "protocols/oip.py",
    "protocols/own.py",
    "protocols/tensors.py",
    "server.py",
    "service.py",
    "settings.py",
    "tables.py",
    "trace.py",
    "unlike.py",
    "values.py",
    "verify.py",
    "web.py",
];

/// The reserved dependency group of the lock that holds what the runtime itself imports.
pub const GROUP: &str = "mlrails-serving";

/// What that group asks for. The bounds are the oldest whose behaviour the runtime relies on.
pub const REQUIREMENTS: [&str; 2] = ["granian>=2.5", "msgspec>=0.18.6"];

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    fn walk(folder: &Path, prefix: &str, found: &mut Vec<String>) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let entry = entry.unwrap();
            let name = entry.file_name().into_string().unwrap();
            if entry.file_type().unwrap().is_dir() {
                if name != "__pycache__" {
                    walk(&entry.path(), &format!("{prefix}{name}/"), found);
                }
            } else {
                found.push(format!("{prefix}{name}"));
            }
        }
    }

    #[test]
    fn every_file_of_the_package_is_embedded() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("templates/runtime/mlrails_runtime");
        let mut found = Vec::new();
        walk(&folder, "mlrails_runtime/", &mut found);
        found.sort();
        let embedded: Vec<&str> = FILES.iter().map(|(path, _)| *path).collect();
        assert_eq!(embedded, found);
    }
}

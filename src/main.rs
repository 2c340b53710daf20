//! Parses, runs, exits.

fn main() -> std::process::ExitCode {
    mlrails::cli::main(std::env::args_os()).into()
}

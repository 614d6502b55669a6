//! `discl-pipe`: see `discl-pipe --help`, or the README.

fn main() -> std::process::ExitCode {
    discl_pipe::cli::main()
}

//! `fold WIDTH FILE`: breaks each paragraph so that the lines of the whole come out evenly.

use std::{env, fs, process::ExitCode};

fn fold(text: &str, width: usize) -> String {
    let options = textwrap::Options::new(width).wrap_algorithm(textwrap::WrapAlgorithm::OptimalFit(Default::default()));
    text.split("\n\n").map(|paragraph| textwrap::fill(&textwrap::unfill(paragraph).0, &options)).collect::<Vec<_>>().join("\n\n")
}

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let [width, path] = arguments.as_slice() else {
        eprintln!("usage: fold WIDTH FILE");
        return ExitCode::from(2);
    };
    let Ok(width) = width.parse() else {
        eprintln!("fold: {width} is not a width");
        return ExitCode::from(2);
    };
    match fs::read_to_string(path) {
        Ok(text) => {
            let folded = fold(text.trim_end(), width);
            println!("{folded}");
            println!("-- {} lines", memchr::memchr_iter(b'\n', folded.as_bytes()).count() + 1);
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("fold: {path}: {error}");
            ExitCode::FAILURE
        }
    }
}

//! `--on-error=shell`: a shell in the step that failed.

use engine::FailedStep;

use crate::{
    failure::{self, Failure, Source},
    flags::OnError,
    terminal::{self, OnSignal, Screen},
};

/// Refuses a shell that nobody could type into: a script would wait for ever.
pub fn check(on_error: OnError) -> Result<(), Failure> {
    if on_error == OnError::Fail || terminal::is_attended(Screen::Stderr) {
        return Ok(());
    }
    Err(Failure::usage_with(
        "`--on-error=shell` needs a terminal: standard input and standard error are not both one",
        "leave it away, and look at the step afterwards: kiln shell STEP COMMAND",
    ))
}

/// Shows why the build failed, and opens a shell in the step that did. Gives the build's exit status, which is not the
/// shell's.
pub async fn enter(failed: &Failure, source: &Source, step: Box<FailedStep>) -> Result<u8, Failure> {
    let (colour, width) = failure::screen();
    eprintln!("{}", failed.render(source, colour, width));
    let (rows, columns) = Screen::Stderr.size();
    let entered = tokio::task::spawn_blocking(move || step.enter(rows, columns)).await;
    let entered = entered.map_err(|error| Failure::machine(error.to_string()))??;
    eprintln!(
        "\n{} in the step as it failed. What is written here is thrown away, and `exit` ends the build.\n\
         The step's command again: (eval \"$KILN_COMMAND\")",
        entered.shell
    );
    let report = terminal::attend(entered.container, Screen::Stderr, true, OnSignal::Kill).await?;
    for warning in &report.warnings {
        eprintln!("warning: {warning}");
    }
    Ok(failed.status)
}

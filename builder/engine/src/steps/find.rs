//! Which step is meant.

use super::{BuildSteps, Step, StepError};

impl BuildSteps {
    /// The step that a text names: its number in the output (`7`), its place in its stage (`build:3`), or a line of it
    /// (`Dockerfile:12`). None where the text is none of these, but may be an image.
    ///
    /// # Errors
    /// It is one of these, and there is no such step, or several.
    pub fn find(&self, text: &str) -> Result<Option<usize>, StepError> {
        let meant: Box<dyn Fn(&Step) -> bool> = match text.rsplit_once(':') {
            None => match text.parse::<usize>() {
                Ok(number) => Box::new(move |step| step.number == Some(number)),
                Err(_) => return Ok(None),
            },
            Some((name, place)) => {
                let Ok(place) = place.parse::<usize>() else { return Ok(None) };
                if name == self.dockerfile || Some(name) == self.dockerfile.rsplit('/').next() {
                    let holds = move |(first, last)| first <= place && place <= last;
                    Box::new(move |step| step.lines.is_some_and(holds))
                } else if self.steps.iter().any(|step| is_of(step, name)) {
                    Box::new(move |step| is_of(step, name) && place_in_stage(&step.name) == Some(place))
                } else {
                    return Ok(None);
                }
            }
        };
        let numbered = self.steps.iter().enumerate();
        let found: Vec<(usize, &Step)> =
            numbered.filter(|(_, step)| step.is_listed() && meant(step)).collect();
        let Some((at, last)) = found.last() else {
            return Err(StepError::NoStep { asked: text.to_owned() });
        };
        // One instruction may be several vertices, of which the last is all of it; but not on several platforms.
        if found.iter().any(|(_, step)| bracket(&step.name) != bracket(&last.name)) {
            let steps = found.iter().filter_map(|(_, step)| step.number).collect();
            return Err(StepError::Several { asked: text.to_owned(), steps });
        }
        let whole = self.steps.iter().rposition(|step| {
            step.is_listed() && step.lines == last.lines && bracket(&step.name) == bracket(&last.name)
        });
        Ok(Some(whole.unwrap_or(*at)))
    }
}

/// Whether a step is of the stage that a person names. Dockerfiles take a stage's name in any case.
fn is_of(step: &Step, name: &str) -> bool {
    !name.is_empty() && step.stage.eq_ignore_ascii_case(name)
}

/// `linux/amd64 build 2/5` of `[linux/amd64 build 2/5] RUN make`.
fn bracket(name: &str) -> &str {
    name.strip_prefix('[').and_then(|rest| rest.split_once(']')).map_or("", |(inside, _)| inside)
}

/// The 2 of `[build 2/5] RUN make`.
fn place_in_stage(name: &str) -> Option<usize> {
    let (place, _) = bracket(name).split_whitespace().last()?.split_once('/')?;
    place.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use oci::Digest;

    use super::*;
    use crate::steps::{Came, VERSION, What};

    fn build(names: &[(&str, &str, usize)]) -> BuildSteps {
        let step = |(at, (name, stage, line)): (usize, &(&str, &str, usize))| Step {
            number: Some(at * 2 + 1),
            name: (*name).to_owned(),
            stage: (*stage).to_owned(),
            lines: Some((*line, *line + 1)),
            came: Came::Cached,
            took: None,
            shell: Vec::new(),
            what: What::Change,
            inputs: Vec::new(),
            base: None,
            definition: None,
            layers: None,
        };
        BuildSteps {
            version: VERSION,
            at: 0,
            dockerfile: "sub/Dockerfile".to_owned(),
            text: Digest::of(b""),
            target: None,
            contexts: BTreeMap::new(),
            steps: names.iter().enumerate().map(step).collect(),
        }
    }

    #[test]
    fn a_step_is_found_by_number_stage_and_line() {
        let build = build(&[
            ("[build 1/3] FROM a", "build", 1),
            ("[build 2/3] RUN b", "build", 3),
            ("[build 3/3] COPY --link c /", "build", 5),
            ("[build 3/3] LINK COPY --link c /", "build", 5),
            ("[stage-1  1/12] RUN d", "stage-1", 9),
        ]);
        for (text, expected) in [
            ("1", Some(0)),
            ("3", Some(1)),
            // The whole of the instruction, whichever vertex of it is named.
            ("5", Some(3)),
            ("build:3", Some(3)),
            ("Build:2", Some(1)),
            ("stage-1:1", Some(4)),
            ("Dockerfile:4", Some(1)),
            ("sub/Dockerfile:9", Some(4)),
            ("alpine", None),
            ("alpine:3", None),
            ("alpine:3.20", None),
            ("build:latest", None),
            ("localhost:5000/a", None),
        ] {
            assert_eq!(build.find(text), Ok(expected), "{text}");
        }
        for text in ["2", "99", "build:4", "Dockerfile:8", "18446744073709551615"] {
            assert_eq!(build.find(text), Err(StepError::NoStep { asked: text.to_owned() }), "{text}");
        }
    }

    #[test]
    fn a_step_of_the_only_stage_is_found_by_it() {
        let build = build(&[("[1/2] FROM a", "stage-0", 1), ("[2/2] RUN b", "stage-0", 3)]);
        assert_eq!(build.find("stage-0:2"), Ok(Some(1)));
        assert_eq!(build.find("stage-1:2"), Ok(None));
    }

    #[test]
    fn a_step_of_two_platforms_is_two_steps() {
        let build = build(&[("[linux/amd64 1/1] RUN a", "", 1), ("[linux/arm64 1/1] RUN a", "", 1)]);
        let asked = "Dockerfile:1".to_owned();
        assert_eq!(build.find("Dockerfile:1"), Err(StepError::Several { asked, steps: vec![1, 3] }));
        assert_eq!(build.find("3"), Ok(Some(1)));
    }
}

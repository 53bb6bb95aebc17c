//! One picture, from the state and the terminal's size.

use console::{Style, measure_text_width, truncate_str};
use engine::{Time, progress::Status};
use indicatif::HumanBytes;

use super::state::{State, Step};
use crate::{failure::printable, progress::seconds};

const BAR: usize = 20;

/// The terminal that a picture is for.
pub struct Frame {
    pub rows: usize,
    pub columns: usize,
    pub colour: bool,
    pub now: Time,
}

impl Frame {
    /// Lines that scroll up for good, and lines that the next picture replaces. With `last` nothing is to be replaced.
    pub fn draw(&self, state: &mut State, last: bool) -> (Vec<String>, Vec<String>) {
        let mut stays: Vec<String> = Vec::new();
        for note in state.notes.drain(..) {
            stays.push(self.paint(Style::new().yellow(), &self.cut(&printable(&note), self.columns)));
        }
        for step in &mut state.steps {
            if step.vertex.completed.is_some() && !step.told {
                step.told = true;
                stays.push(self.ended(step));
            }
        }
        let (ended, all) = state.counts();
        let word = if last { outcome(state) } else { "Building" };
        let header = format!("[+] {word} {} ({ended}/{all})", seconds(state.begun, self.now));
        let mut live = vec![self.paint(Style::new().bold(), &self.cut(&header, self.columns))];
        if last {
            stays.append(&mut live);
            return (stays, live);
        }
        let running: Vec<&Step> = state.steps.iter().filter(|step| step.vertex.completed.is_none()).collect();
        // One line stays free, so that the cursor never makes the screen scroll.
        let room = self.rows.saturating_sub(2).max(1);
        let shown = running.len().min(room);
        let each = (room - shown) / shown.max(1);
        for step in &running[..shown] {
            live.push(self.running(step));
            live.extend(self.details(step, each));
        }
        (stays, live)
    }

    fn ended(&self, step: &Step) -> String {
        let vertex = &step.vertex;
        let (mark, style) = match &vertex.error {
            Some(error) if error == "canceled" => ("CANCELED ", Style::new().yellow()),
            Some(_) => ("ERROR ", Style::new().red()),
            None if vertex.cached => ("CACHED ", Style::new().cyan()),
            None => ("", Style::new().blue()),
        };
        let completed = vertex.completed.unwrap_or(self.now);
        let time = seconds(vertex.started.unwrap_or(completed), completed);
        self.paint(style, &self.line(&format!(" => {mark}{}", printable(&vertex.name)), &time))
    }

    fn running(&self, step: &Step) -> String {
        let time = seconds(step.vertex.started.unwrap_or(self.now), self.now);
        self.line(&format!(" => {}", printable(&step.vertex.name)), &time)
    }

    fn details(&self, step: &Step, room: usize) -> Vec<String> {
        let open = step.statuses.iter().filter(|status| status.completed.is_none());
        let mut lines: Vec<String> = open.map(|status| self.transfer(status)).collect();
        lines.truncate(room);
        let logs = step.lines.len().min(room - lines.len());
        for line in step.lines.iter().skip(step.lines.len() - logs) {
            let text = printable(&String::from_utf8_lossy(line)).replace('\t', "    ");
            lines.push(self.paint(Style::new().dim(), &self.cut(&format!(" => # {text}"), self.columns)));
        }
        lines
    }

    fn transfer(&self, status: &Status) -> String {
        let id =
            status.id.strip_prefix("sha256:").map_or(status.id.as_str(), |hex| &hex[..hex.len().min(12)]);
        let time = seconds(status.started, self.now);
        if status.total == 0 {
            return self.line(&format!(" => => {id}"), &time);
        }
        let filled = (status.current.min(status.total) as usize * BAR) / status.total.max(1) as usize;
        let bar = format!("[{}{}]", "=".repeat(filled), " ".repeat(BAR - filled));
        let (current, total) = (HumanBytes(status.current), HumanBytes(status.total));
        self.line(&format!(" => => {id} {bar} {current} / {total}"), &time)
    }

    /// A text at the left and a time at the right end.
    fn line(&self, left: &str, right: &str) -> String {
        let room = self.columns.saturating_sub(right.len() + 2);
        let left = self.cut(left, room);
        let gap = self.columns.saturating_sub(measure_text_width(&left) + right.len() + 1);
        format!("{left}{}{right}", " ".repeat(gap))
    }

    fn cut(&self, text: &str, width: usize) -> String {
        let line = text.lines().next().unwrap_or_default();
        truncate_str(line, width, "…").into_owned()
    }

    fn paint(&self, style: Style, text: &str) -> String {
        if self.colour { style.force_styling(true).apply_to(text).to_string() } else { text.to_owned() }
    }
}

/// How a build that is over went.
fn outcome(state: &State) -> &'static str {
    let errors = || state.steps.iter().filter_map(|step| step.vertex.error.as_deref());
    match (errors().any(|error| error != "canceled"), errors().next()) {
        (true, _) => "Failed after",
        (false, Some(_)) => "Stopped after",
        (false, None) => "Built in",
    }
}

#[cfg(test)]
mod tests {
    use engine::progress::{Event, Log, Stream, Vertex};
    use oci::Digest;

    use super::*;

    fn vertex(name: &str, completed: Option<u64>) -> Event {
        Event::Vertex(Vertex {
            digest: Digest::of(name.as_bytes()),
            name: name.to_owned(),
            inputs: Vec::new(),
            source: None,
            started: Some(Time(0)),
            completed: completed.map(Time),
            cached: false,
            error: None,
        })
    }

    #[test]
    fn a_picture_fits_its_terminal_however_small() {
        for rows in [1, 2, 5, 24] {
            for columns in [1, 10, 80] {
                let mut state = State::new(Time(0));
                for n in 0..10 {
                    state.take(&vertex(
                        &format!("[{n}/10] RUN a long command with wide 漢字"),
                        (n < 3).then_some(5),
                    ));
                }
                let bytes = b"one\ntwo\x1b[31m\nthree".to_vec();
                let vertex = Digest::of("[5/10] RUN a long command with wide 漢字".as_bytes());
                state.take(&Event::Log(Log { vertex, stream: Stream::Stdout, bytes, time: Time(1) }));
                let frame = Frame { rows, columns, colour: false, now: Time(2_500_000_000) };
                let (stays, live) = frame.draw(&mut state, false);
                assert_eq!(stays.len(), 3);
                assert!(live.len() <= rows.max(2), "{rows} rows: {live:?}");
                for line in stays.iter().chain(&live) {
                    assert!(measure_text_width(line) <= columns.max(6), "{columns} columns: {line:?}");
                    assert!(!line.contains('\x1b'));
                }
            }
        }
    }
}

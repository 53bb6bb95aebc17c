//! BuildKit's `SolveStatus`, one JSON object a line (api/services/control, client/graph.go), and besides what BuildKit does not
//! tell: `{"usages": […]}`, what each step took.

use std::{
    io::Write,
    sync::{Mutex, PoisonError},
};

use base64::Engine as _;
use engine::progress::{Event, Stream, Usage};
use serde_json::{Value, json};

use super::Display;

/// Writes events as JSON.
pub struct RawJson<W>(Mutex<W>);

impl<W: Write> RawJson<W> {
    /// Writes to `out`.
    pub fn new(out: W) -> RawJson<W> {
        RawJson(Mutex::new(out))
    }
}

impl<W: Write + Send> Display for RawJson<W> {
    fn event(&self, event: &Event) {
        let Some(status) = status(event) else { return };
        let line = format!("{status}\n");
        let mut out = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // A reader that is gone wants no more; the build goes on.
        let _gone = out.write_all(line.as_bytes());
    }

    fn finish(&self) {}
}

/// The event's line; none for what BuildKit's stream does not tell.
fn status(event: &Event) -> Option<Value> {
    Some(match event {
        Event::Vertex(vertex) => {
            let mut object = json!({
                "digest": vertex.digest,
                "name": vertex.name,
            });
            if !vertex.inputs.is_empty() {
                object["inputs"] = json!(vertex.inputs);
            }
            if let Some(started) = vertex.started {
                object["started"] = json!(started.rfc3339());
            }
            if let Some(completed) = vertex.completed {
                object["completed"] = json!(completed.rfc3339());
            }
            if vertex.cached {
                object["cached"] = json!(true);
            }
            if let Some(error) = &vertex.error {
                object["error"] = json!(error);
            }
            json!({ "vertexes": [object] })
        }
        Event::Status(status) => {
            let mut object = json!({
                "id": status.id,
                "vertex": status.vertex,
                "current": status.current,
                "total": status.total,
                "started": status.started.rfc3339(),
                "timestamp": status.started.rfc3339(),
            });
            if let Some(completed) = status.completed {
                object["completed"] = json!(completed.rfc3339());
                object["timestamp"] = json!(completed.rfc3339());
            }
            json!({ "statuses": [object] })
        }
        Event::Log(log) => {
            let stream = match log.stream {
                Stream::Stdout => 1,
                Stream::Stderr => 2,
            };
            json!({ "logs": [{
                "vertex": log.vertex,
                "stream": stream,
                "data": base64(&log.bytes),
                "timestamp": log.time.rfc3339(),
            }] })
        }
        Event::Warning(warning) => {
            let mut object = json!({
                "level": 1,
                "short": base64(format!("{}: {}", warning.code, warning.message).as_bytes()),
            });
            if let Some(rule) = dockerfile::lint::rule(&warning.code) {
                object["detail"] = json!([base64(rule.description.as_bytes())]);
                object["url"] = json!(rule.page.unwrap_or_default());
            }
            if let Some(vertex) = warning.vertex {
                object["vertex"] = json!(vertex);
            }
            json!({ "warnings": [object] })
        }
        Event::Usage(usage) => {
            let Usage { vertex, took, throttled_periods } = usage;
            let mut object = json!({ "vertex": vertex });
            // Whatever ran took some; where the process that counts was killed with the step, nobody knows.
            if took.user_microseconds > 0 || took.system_microseconds > 0 {
                object["userMicroseconds"] = json!(took.user_microseconds);
                object["systemMicroseconds"] = json!(took.system_microseconds);
            }
            if let Some(bytes) = took.largest_process_bytes {
                object["largestProcessBytes"] = json!(bytes);
            }
            if let Some(bytes) = took.peak_memory_bytes {
                object["peakMemoryBytes"] = json!(bytes);
            }
            if *throttled_periods > 0 {
                object["throttledPeriods"] = json!(throttled_periods);
            }
            json!({ "usages": [object] })
        }
        Event::Definition(_) => return None,
    })
}

/// Go's JSON writes bytes as standard base64.
fn base64(bytes: &[u8]) -> String {
    base64::engine::general_purpose::STANDARD.encode(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nobody_measured_is_left_out() {
        let vertex = oci::Digest::of(b"a step");
        let line = |user_microseconds, throttled_periods| {
            let mut usage = Usage { vertex, took: Default::default(), throttled_periods };
            usage.took.user_microseconds = user_microseconds;
            status(&Event::Usage(usage)).expect("it is told")
        };
        assert_eq!(line(0, 0), json!({ "usages": [{ "vertex": vertex }] }));
        let measured = json!({
            "vertex": vertex, "userMicroseconds": 5, "systemMicroseconds": 0, "throttledPeriods": 2
        });
        assert_eq!(line(5, 2), json!({ "usages": [measured] }));
    }
}

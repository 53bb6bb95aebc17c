//! BuildKit's `SolveStatus`, one JSON object a line (api/services/control, client/graph.go).

use std::{
    io::Write,
    sync::{Mutex, PoisonError},
};

use base64::Engine as _;
use engine::progress::{Event, Stream};
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
        Event::Definition(_) => return None,
    })
}

/// Go's JSON writes bytes as standard base64.
fn base64(bytes: &[u8]) -> String {
    base64::engine::general_purpose::STANDARD.encode(bytes)
}

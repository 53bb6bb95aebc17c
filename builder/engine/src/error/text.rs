//! Parts of what errors say.

use oci::Platform;

use crate::effect::bounds::size;

pub(super) fn list(platforms: &[Platform]) -> String {
    match platforms {
        [] => "no platform".to_owned(),
        some => some.iter().map(Platform::to_string).collect::<Vec<_>>().join(", "),
    }
}

pub(super) fn memory_text(limit: Option<u64>, peak: Option<u64>) -> String {
    match (limit, peak.map(with_unit)) {
        // The kernel counts in pages, and says so to the byte.
        (Some(limit), Some(peak)) => {
            format!("it may have {}, and wanted more when it had {peak}", size(limit))
        }
        (Some(limit), None) => format!("it may have {}", size(limit)),
        (None, peak) => {
            let had = peak.map_or_else(String::new, |peak| format!("it had {peak}, and "));
            format!("{had}a control group above its own, or the machine, had no more")
        }
    }
}

pub(super) fn available_text(available: Option<u64>) -> String {
    available.map_or_else(String::new, |bytes| format!(" ({} are available now)", with_unit(bytes)))
}

pub(super) fn with_unit(bytes: u64) -> String {
    match bytes >> 30 {
        0 => format!("{:.1} MiB", bytes as f64 / (1 << 20) as f64),
        _ => format!("{:.1} GiB", bytes as f64 / (1 << 30) as f64),
    }
}

pub(super) fn exit_text(command: &str, code: Option<u8>, signal: Option<i32>) -> String {
    match (code, signal) {
        (Some(137), _) => {
            format!("`{command}` exited with 137: so does a shell when SIGKILL ended what it ran")
        }
        (Some(code), _) => format!("`{command}` exited with {code}"),
        (None, Some(signal)) => format!("`{command}` was ended by signal {signal}"),
        (None, None) => format!("`{command}` did not end by itself"),
    }
}

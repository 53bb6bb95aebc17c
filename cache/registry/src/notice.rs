//! What a person should know and what stops nothing: said once.

use std::{
    collections::BTreeSet,
    fmt,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
};

/// Something that was done without.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice {
    /// A file says something that is not used.
    Unused {
        /// The file.
        path: PathBuf,
        /// What of it.
        what: String,
    },
    /// A mirror did not answer, and is not asked again.
    Mirror {
        /// Its address.
        address: String,
        /// The registry that it stands for.
        registry: String,
        /// What it did.
        fault: String,
    },
}

impl Notice {
    /// What it is about, whatever it says of it: several layers may meet a mirror at once, and each another fault.
    fn subject(&self) -> String {
        match self {
            Notice::Unused { .. } => self.to_string(),
            Notice::Mirror { address, registry, .. } => format!("{address} {registry}"),
        }
    }
}

impl fmt::Display for Notice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Notice::Unused { path, what } => write!(f, "{}: not used: {what}", path.display()),
            Notice::Mirror { address, registry, fault } => {
                write!(f, "the mirror {address} of {registry} is passed over: {fault}")
            }
        }
    }
}

/// Who is told.
pub(crate) type Listener = Arc<dyn Fn(&Notice) + Send + Sync>;

/// Notices until somebody listens. Clones are one.
#[derive(Clone, Default)]
pub(crate) struct Notices(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    said: BTreeSet<String>,
    waiting: Vec<Notice>,
}

impl Notices {
    /// Keeps a notice, unless there was the same before.
    pub(crate) fn tell(&self, notice: &Notice) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if state.said.insert(notice.subject()) {
            state.waiting.push(notice.clone());
        }
    }

    /// Hands on what was kept.
    pub(crate) fn hand_to(&self, listener: Option<&Listener>) {
        let Some(listener) = listener else { return };
        let waiting = std::mem::take(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner).waiting);
        waiting.iter().for_each(|notice| listener(notice));
    }

    #[cfg(test)]
    pub(crate) fn untold(&self) -> Vec<String> {
        self.0.lock().expect("no test panicked").waiting.iter().map(Notice::to_string).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_notice_is_said_once_and_waits_for_a_listener() {
        let notices = Notices::default();
        let notice = Notice::Unused { path: "/f".into(), what: "`x`".to_owned() };
        notices.tell(&notice);
        notices.tell(&notice);
        notices.hand_to(None);
        let heard: Arc<Mutex<Vec<String>>> = Arc::default();
        let listener: Listener = {
            let heard = heard.clone();
            Arc::new(move |notice: &Notice| heard.lock().expect("no panic").push(notice.to_string()))
        };
        notices.hand_to(Some(&listener));
        notices.tell(&notice);
        notices.hand_to(Some(&listener));
        assert_eq!(*heard.lock().expect("no panic"), ["/f: not used: `x`"]);
    }
}

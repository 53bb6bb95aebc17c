//! Overwriting what was confided to a step, once the step has it.
//!
//! A plan holds the contents of secret files and the values of variables. The zygote gives a copy of all its memory to each
//! step that it clones, so what it kept of one step's plan would be in the next one's PID 1; and what this process keeps
//! may be swapped.

use std::ops::Deref;

use zeroize::Zeroize;

use crate::Call;

impl Call {
    /// Overwrites contents and variables. The call can still be named, and no longer be made.
    fn forget(&mut self) {
        match self {
            Call::File { content, .. } => content.zeroize(),
            Call::Exec { env, .. } => env.iter_mut().for_each(Zeroize::zeroize),
            _ => {}
        }
    }

    /// How many bytes of it are to be overwritten.
    fn confided_bytes(&self) -> usize {
        match self {
            Call::File { content, .. } => content.len(),
            Call::Exec { env, .. } => env.iter().map(|variable| variable.as_bytes().len() + 16).sum(),
            _ => 0,
        }
    }
}

/// A plan that is overwritten when it is dropped, as far as it was confided something.
pub(crate) struct Confided(Vec<Call>);

impl Confided {
    pub fn new(calls: Vec<Call>) -> Confided {
        Confided(calls)
    }

    /// The plan without what it was confided.
    pub fn told(mut self) -> Vec<Call> {
        self.0.iter_mut().for_each(Call::forget);
        std::mem::take(&mut self.0)
    }
}

impl Deref for Confided {
    type Target = [Call];

    fn deref(&self) -> &[Call] {
        &self.0
    }
}

impl Drop for Confided {
    fn drop(&mut self) {
        self.0.iter_mut().for_each(Call::forget);
    }
}

/// How many bytes of a plan are to be overwritten.
pub(crate) fn confided_bytes(calls: &[Call]) -> usize {
    calls.iter().map(Call::confided_bytes).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Slot;

    #[test]
    fn what_was_confided_is_overwritten_where_it_was() {
        let calls = vec![
            Call::File {
                store: Slot(0),
                name: c"1".into(),
                content: b"hidden".to_vec(),
                mode: 0o400,
                uid: 0,
                gid: 0,
                readonly: true,
                keep: Slot(1),
            },
            Call::Exec {
                candidates: vec![c"/bin/sh".into()],
                argv: vec![c"sh".into()],
                env: vec![c"TOKEN=hidden".into()],
            },
        ];
        assert!(confided_bytes(&calls) >= 18);
        let calls = Confided::new(calls).told();
        let (Call::File { content, .. }, Call::Exec { argv, env, .. }) = (&calls[0], &calls[1]) else {
            panic!("they are what they were");
        };
        assert!(content.is_empty());
        assert_eq!(argv, &[c"sh".to_owned()]);
        assert!(env.iter().all(|variable| variable.as_bytes().is_empty()), "{env:?}");
    }
}

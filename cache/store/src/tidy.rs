//! Automatic collection: at the end of a build that added something, and cheap while nothing is due.
//!
//! What the last look found is in a small file. As long as the folder has not outgrown a rule since, and the look is not long
//! ago, nothing else is asked.

use std::{fs, io};

use serde::{Deserialize, Serialize};

use crate::{Collection, Error, Freed, LockName, Result, Rule, Store, database::unsigned, policy::Disk};

/// Two looks are at least so far apart, in seconds: a folder that stays too large is not walked through after each build.
const BETWEEN_SECONDS: u64 = 60;
/// Without being due, a look is made after so long, in seconds: what is in cache mounts is not known otherwise, nor what got
/// old.
const LOOK_SECONDS: u64 = 6 * 60 * 60;

/// A folder that nobody has looked at is new, as a rule: it has outgrown nothing, and nothing in it is old. The first look
/// comes after so long, in seconds.
const FIRST_SECONDS: u64 = 10 * 60;

/// An image without a name stays for so long, in seconds: what a build has just made is there to be run or named.
const NEW_IMAGE_SECONDS: u64 = 60 * 60;

/// What a look found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Look {
    at: u64,
    /// The sum of all rows of contents, in bytes.
    contents_bytes: u64,
    /// What the cache took, in bytes.
    used_bytes: u64,
}

impl Look {
    /// What is taken for one in a folder that nobody has looked at yet.
    fn none_yet(now: u64, contents_bytes: u64) -> Look {
        Look {
            at: now.saturating_sub(LOOK_SECONDS - FIRST_SECONDS),
            contents_bytes,
            used_bytes: contents_bytes,
        }
    }

    /// Whether another look is due.
    fn is_over(&self, now: u64, contents_bytes: u64, disk: &Disk, rules: &[Rule]) -> bool {
        // A look of the future was made before the clock was put right: it tells nothing.
        let Some(since) = now.checked_sub(self.at) else { return true };
        if since >= LOOK_SECONDS {
            return true;
        }
        if since < BETWEEN_SECONDS {
            return false;
        }
        let used = self.used_bytes.saturating_add(contents_bytes.saturating_sub(self.contents_bytes));
        // What has to be old to go does not get old so quickly.
        let at_once = rules.iter().filter(|rule| rule.keep_seconds == 0);
        at_once.into_iter().any(|rule| rule.caps.keep_bytes(used, disk).is_some_and(|keep| used > keep))
    }
}

impl Store {
    /// Collects by a policy, if that is due: something was added through this handle, no other process is at it, and the
    /// cache has outgrown a rule or was not looked at for some hours. `None` where it was not due.
    ///
    /// # Errors
    /// As those of [`Store::collect`].
    pub fn tidy(&self, rules: &[Rule]) -> Result<Option<Freed>> {
        if !self.has_added() || rules.is_empty() {
            return Ok(None);
        }
        let Some(_turn) = self.try_lock(&LockName::Collection)? else { return Ok(None) };
        let now = self.clock().epoch().0;
        let contents_bytes = self.contents_bytes()?;
        let last = self.last_look()?;
        let look = last.unwrap_or_else(|| Look::none_yet(now, contents_bytes));
        if !look.is_over(now, contents_bytes, &self.disk(), rules) {
            if last.is_none() {
                self.note(look)?;
            }
            return Ok(None);
        }
        let by_policy = Collection::by(rules.to_vec());
        let freed = self.collect(&Collection { keep_images_seconds: NEW_IMAGE_SECONDS, ..by_policy })?;
        self.note(Look { at: now, contents_bytes: self.contents_bytes()?, used_bytes: freed.used_bytes })?;
        Ok(Some(freed))
    }

    fn note(&self, look: Look) -> Result<()> {
        let text = serde_json::to_vec(&look).expect("numbers are JSON");
        self.lease()?.write_whole(&self.layout().look(), &text)
    }

    fn contents_bytes(&self) -> Result<u64> {
        self.ask("look at what is here", |contents| {
            let query = "SELECT coalesce(sum(size_bytes), 0) FROM contents";
            Ok(contents.connection.query_row(query, [], |row| unsigned(row, 0))?)
        })
    }

    /// A file that cannot be understood counts as none.
    fn last_look(&self) -> Result<Option<Look>> {
        let path = self.layout().look();
        match fs::read(&path) {
            Ok(text) => Ok(serde_json::from_slice(&text).ok()),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(Error::io("read", path, e)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::{Caps, Space};

    #[test]
    fn a_look_is_due_when_a_rule_is_outgrown_or_it_is_long_ago() {
        let look = Look { at: 1000, contents_bytes: 500, used_bytes: 300 };
        let disk = Disk { total_bytes: 10_000, free_bytes: 5_000 };
        let rule = |keep_seconds, max: u64| Rule {
            keep_seconds,
            caps: Caps { max_used: Some(Space::Bytes(max)), ..Caps::default() },
            ..Rule::default()
        };
        for (what, since, contents_bytes, rule, due) in [
            ("nothing new", 100, 500, rule(0, 300), false),
            ("one byte more", 100, 501, rule(0, 300), true),
            ("below the cap", 100, 600, rule(0, 400), false),
            ("what was removed does not count", 100, 100, rule(0, 299), true),
            ("a moment ago", 59, 10_000, rule(0, 300), false),
            ("only what is old goes", 100, 10_000, rule(60, 300), false),
            ("long ago", LOOK_SECONDS, 500, rule(60, 300), true),
            ("no cap", 100, 10_000, Rule::default(), false),
        ] {
            assert_eq!(look.is_over(1000 + since, contents_bytes, &disk, &[rule]), due, "{what}");
        }
        let new = Look::none_yet(1_000_000, 300);
        assert!(!new.is_over(1_000_000, 300, &disk, &[rule(0, 300)]), "a new folder");
        assert!(
            new.is_over(1_000_000, 300, &disk, &[rule(0, 299)]),
            "a new folder that is too large already"
        );
        assert!(new.is_over(1_000_000 + FIRST_SECONDS, 300, &disk, &[rule(60, 300)]), "its first look");
        assert!(look.is_over(999, 0, &disk, &[rule(0, 1)]), "a clock that went back");
    }
}

//! `kiln du`, `kiln prune`, and what is collected without being asked.

use store::{Collection, Disk, DiskUsage, Freed, Rule};

use crate::{engine::Engine, error::Error};

impl Engine {
    /// What the state folder holds, each byte once, the largest entry first.
    ///
    /// # Errors
    /// The state folder cannot be read.
    pub fn disk_usage(&self) -> Result<DiskUsage, Error> {
        Ok(self.store.disk_usage()?)
    }

    /// The file system of the state folder.
    pub fn disk(&self) -> Disk {
        self.store.disk()
    }

    /// Removes what the rules say, one after the other. May run beside builds; what they use stays, and what an image with a
    /// name needs.
    ///
    /// # Errors
    /// The state folder cannot be read or written.
    pub fn prune(&self, rules: Vec<Rule>) -> Result<Freed, Error> {
        Ok(self.store.collect(&Collection::by(rules))?)
    }

    /// Collects by a policy where that is due after what this engine has built; `None` where it is not. Comes when
    /// everything that was asked for is done: it may be stopped or killed at any time.
    ///
    /// # Errors
    /// As those of [`Engine::prune`].
    pub async fn tidy(&self, policy: Vec<Rule>) -> Result<Option<Freed>, Error> {
        let store = self.store.clone();
        let tidied = tokio::task::spawn_blocking(move || store.tidy(&policy)).await;
        Ok(tidied.map_err(|error| crate::error::Cause::Task(error.to_string()))??)
    }
}

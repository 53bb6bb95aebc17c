//! One blob's upload: begun, sent in parts, taken up after a break, closed.

use std::sync::{Arc, PoisonError, atomic::AtomicU64};

use oci::{Descriptor, Reference};
use reqwest::{
    Method, Response, StatusCode, Url,
    header::{HeaderMap, LOCATION, RANGE},
};

use super::{
    Content, PushOptions, Pushed, Sessions,
    content::{Unread, part},
    is_created,
};
use crate::{
    Client,
    error::{Error, Fault},
    route::Route,
    session::{Place, Question},
    token::Access,
    wire::{Sent, target},
};

/// How often an upload that was taken up and then refused is begun anew. Docker's registry refuses one in whose last part
/// the connection broke: it knows only how much it has of whole parts.
const ANEW: u32 = 2;

pub(crate) struct Upload<'a> {
    client: &'a Client,
    to: &'a Reference,
    blob: &'a Descriptor,
    content: &'a dyn Content,
    sessions: Option<&'a dyn Sessions>,
    moved: Arc<AtomicU64>,
    route: Route,
    /// Where the registry wants the next bytes.
    address: Option<Url>,
    /// How many bytes it has.
    accepted: u64,
    /// Whether it is known that it has so many; else it is asked.
    sure: bool,
    /// Whether this upload was begun by an earlier run, or was taken up after a break.
    resumed: bool,
    in_parts: bool,
    first_sent: Option<u64>,
    /// The most that was ever accepted when something failed.
    furthest: u64,
    /// How often it was begun anew without having failed.
    anew: u32,
}

impl<'a> Upload<'a> {
    pub(crate) fn new(
        client: &'a Client,
        to: &'a Reference,
        blob: &'a Descriptor,
        content: &'a dyn Content,
        options: &PushOptions<'a>,
        route: Route,
    ) -> Upload<'a> {
        let sessions = options.sessions;
        let held = sessions.and_then(|held| held.held(&to.registry, &to.repository, blob.digest));
        // Only the registry's own host is believed to have been meant.
        let address = held.and_then(|held| held.parse().ok()).filter(|address: &Url| {
            let base = &route.endpoint().base;
            base.scheme() == "http" || address.scheme() == "https"
        });
        Upload {
            client,
            to,
            blob,
            content,
            sessions,
            moved: options.moved.clone(),
            resumed: address.is_some(),
            address,
            route,
            accepted: 0,
            sure: false,
            in_parts: blob.size > client.limits().part_bytes,
            first_sent: None,
            furthest: 0,
            anew: 0,
        }
    }

    /// Asks the registry to take the blob from another of its repositories.
    ///
    /// # Errors
    /// What made it impossible to ask. That it did not do it is no error; the upload that it began instead is used.
    pub(crate) async fn mount(&mut self, from: &str) -> Result<bool, Error> {
        let digest = self.blob.digest.to_string();
        let pairs = [("mount", digest.as_str()), ("from", from)];
        let access = Access::push_and_pull(from);
        let place = Place::With("blobs/uploads/", &pairs);
        let asked = Question { place, access: &access, ..Question::read(Method::POST, "") };
        match self.client.ask(self.route.endpoint(), &asked).await {
            Ok(response) if is_created(response.status()) => Ok(true),
            Ok(response) => {
                if self.address.is_none() {
                    self.begun(&response).map_err(|fault| self.route.fail(fault))?;
                }
                Ok(false)
            }
            // Whatever it has against mounting, it may take the bytes.
            Err(_) => Ok(false),
        }
    }

    /// Sends all that is not there yet.
    pub(crate) async fn run(mut self) -> Result<Pushed, Error> {
        loop {
            let fault = match self.step().await {
                Ok(false) => continue,
                Ok(true) => break,
                Err(fault) => fault,
            };
            // Only what was never reached before is progress: an upload that begins anew again and again comes to an end.
            if self.accepted > self.furthest {
                self.furthest = self.accepted;
                self.route.progressed();
            }
            if self.starts_anew(&fault) {
                self.forget();
                continue;
            }
            self.sure = false;
            self.route.after(fault).await?;
        }
        self.remember(None);
        Ok(Pushed::Sent { from_byte: self.first_sent.unwrap_or(self.blob.size) })
    }

    /// Whether a fault is one that another upload may not meet: what an earlier run began is gone, or the registry takes
    /// no parts.
    fn starts_anew(&mut self, fault: &Fault) -> bool {
        let refused = matches!(fault, Fault::NotFound { .. } | Fault::Status { status: 400..=499, .. });
        if refused && self.resumed && self.anew < ANEW {
            self.anew += 1;
            self.resumed = false;
            return true;
        }
        if refused && self.in_parts && self.accepted == 0 && self.address.is_some() {
            self.in_parts = false;
            return true;
        }
        false
    }

    fn forget(&mut self) {
        (self.address, self.accepted) = (None, 0);
        self.remember(None);
    }

    fn remember(&self, address: Option<&str>) {
        if let Some(sessions) = self.sessions {
            sessions.hold(&self.to.registry, &self.to.repository, self.blob.digest, address);
        }
    }

    /// One request. Whether it was the last.
    async fn step(&mut self) -> Result<bool, Fault> {
        let Some(address) = self.address.clone() else {
            let asked = Question { access: &Access::PUSH, ..Question::read(Method::POST, "blobs/uploads/") };
            let response = self.client.ask(self.route.endpoint(), &asked).await?;
            self.client.learn(&self.route);
            self.begun(&response)?;
            return Ok(false);
        };
        if !self.sure {
            return self.look(&address).await.map(|()| false);
        }
        let left = self.blob.size - self.accepted;
        match self.in_parts && left > 0 {
            true => self.send_part(&address, left.min(self.client.limits().part_bytes)).await.map(|()| false),
            false => self.close(&address, left).await.map(|()| true),
        }
    }

    fn begun(&mut self, response: &Response) -> Result<(), Fault> {
        let base = self.route.endpoint().url("blobs/uploads/");
        self.address = Some(target(&base, response.headers())?);
        (self.accepted, self.sure) = (0, true);
        Ok(())
    }

    /// Asks how much of an upload has arrived.
    async fn look(&mut self, address: &Url) -> Result<(), Fault> {
        let place = Place::At(address);
        let asked = Question { place, access: &Access::PUSH, ..Question::read(Method::GET, "") };
        match self.client.ask(self.route.endpoint(), &asked).await {
            Ok(response) if response.status() == StatusCode::NO_CONTENT => {
                let has = next_byte(response.headers()).unwrap_or(0);
                if has > self.blob.size || (has > 0 && !self.in_parts) {
                    self.forget();
                    return Ok(());
                }
                self.moved_on(address, response.headers())?;
                (self.accepted, self.sure, self.resumed) = (has, true, true);
                Ok(())
            }
            // It does not know the upload, or not the question: begin anew.
            Ok(_) | Err(Fault::NotFound { .. } | Fault::Status { status: 400..=499, .. }) => {
                self.forget();
                self.resumed = false;
                Ok(())
            }
            Err(fault) => Err(fault),
        }
    }

    async fn send_part(&mut self, address: &Url, length: u64) -> Result<(), Fault> {
        let first = self.accepted;
        let response = self.send(Method::PATCH, address, length, Some(first)).await?;
        self.accepted = first + length;
        if let Some(next) = next_byte(response.headers()).filter(|next| *next != self.accepted) {
            if next > self.accepted {
                return Err(Fault::Range { wanted: self.accepted, answered: next.to_string() });
            }
            // It took less than it was given; the rest is sent again.
            self.accepted = next;
        }
        self.moved_on(address, response.headers())?;
        let address = self.address.clone().expect("an upload that goes on has an address");
        self.remember(Some(address.as_str()));
        Ok(())
    }

    async fn close(&mut self, address: &Url, left: u64) -> Result<(), Fault> {
        let mut address = address.clone();
        address.query_pairs_mut().append_pair("digest", &self.blob.digest.to_string());
        let response = self.send(Method::PUT, &address, left, None).await?;
        match is_created(response.status()) || response.status() == StatusCode::NO_CONTENT {
            true => Ok(()),
            false => Err(Fault::Status {
                status: response.status().as_u16(),
                after: None,
                said: crate::error::Said::default(),
            }),
        }
    }

    async fn send(
        &mut self,
        method: Method,
        address: &Url,
        length: u64,
        range: Option<u64>,
    ) -> Result<Response, Fault> {
        let first = self.accepted;
        if length > 0 {
            self.first_sent.get_or_insert(first);
        }
        let unread = Unread::default();
        let body = || part(self.content, first, length, &self.moved, &unread);
        let sent = Sent {
            content_type: "application/octet-stream",
            length,
            first: range,
            body: &body,
            moved: &self.moved,
        };
        let question = Question {
            method,
            place: Place::At(address),
            accept: None,
            from: None,
            sent: Some(&sent),
            access: &Access::PUSH,
        };
        let answer = self.client.ask(self.route.endpoint(), &question).await;
        let unread = unread.lock().unwrap_or_else(PoisonError::into_inner).take();
        answer.map_err(|fault| unread.map_or(fault, |why| Fault::Source { why }))
    }

    /// Where an answer wants the next request; without a word, where this one went.
    fn moved_on(&mut self, from: &Url, headers: &HeaderMap) -> Result<(), Fault> {
        self.address = Some(match headers.contains_key(LOCATION) {
            true => target(from, headers)?,
            false => from.clone(),
        });
        Ok(())
    }
}

/// The first byte that a registry does not have, by its `Range: 0-N` (distribution-spec v1.1, § Pushing a blob in chunks).
/// Some say `0-0` for nothing, too, and then one byte is sent again.
fn next_byte(headers: &HeaderMap) -> Option<u64> {
    let text = headers.get(RANGE)?.to_str().ok()?;
    let last: u64 = text.strip_prefix("bytes=").unwrap_or(text).strip_prefix("0-")?.parse().ok()?;
    Some(if last == 0 { 0 } else { last + 1 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_registry_has_is_read() {
        for (text, next) in
            [("0-0", Some(0)), ("0-9", Some(10)), ("bytes=0-9", Some(10)), ("5-9", None), ("", None)]
        {
            let headers = [(RANGE, text.parse().expect("a header"))].into_iter().collect();
            assert_eq!(next_byte(&headers), next, "{text}");
        }
    }
}

//! What a repository has: its tags.

use oci::Reference;
use reqwest::{Method, Url, header::LINK};
use serde::Deserialize;

use crate::{
    Client,
    error::{Error, Fault, What},
    session::{Place, Question},
    wire::{body, clean},
};

/// How many pages of tags are read.
const PAGES: usize = 1000;

/// How many bytes of tags are read: more than a million tags as people write them.
const ALL_BYTES: u64 = 64 << 20;

/// Asked for at once; a registry may give fewer.
const PAGE_TAGS: &str = "1000";

#[derive(Deserialize)]
struct Page {
    /// `null` in a repository without tags.
    tags: Option<Vec<String>>,
}

impl Client {
    /// The tags of a repository, sorted (distribution-spec v1.1, § Listing tags).
    ///
    /// # Errors
    /// What the registry did, [`Fault::TooLarge`] when it has no end of pages, and [`Fault::Document`] when it lists what is
    /// no tag: a terminal could take that for orders.
    pub async fn tags(&self, repository: &Reference) -> Result<Vec<String>, Error> {
        let mut route = self.push_route(repository, What::Tags)?;
        let mut tags = Vec::new();
        let mut next: Option<Url> = None;
        let mut read = 0;
        for _ in 0..PAGES {
            let query = [("n", PAGE_TAGS)];
            let place = next.as_ref().map_or(Place::With("tags/list", &query), Place::At);
            let question = Question { place, ..Question::read(Method::GET, "") };
            let limits = self.limits();
            let response = loop {
                match self.ask(route.endpoint(), &question).await {
                    Ok(response) => break response,
                    Err(fault) => route.after(fault).await?,
                }
            };
            self.learn(&route);
            let from = next.clone().unwrap_or_else(|| route.endpoint().url("tags/list"));
            let link = response.headers().get(LINK).and_then(|link| link.to_str().ok()).map(str::to_owned);
            let bytes = body(response, limits.manifest_bytes, limits.idle).await;
            let page = bytes.and_then(|bytes| {
                read += bytes.len() as u64;
                page_tags(&bytes)
            });
            tags.extend(page.map_err(|fault| route.fail(fault))?);
            if read > ALL_BYTES {
                return Err(route.fail(Fault::TooLarge { limit: ALL_BYTES }));
            }
            next = match link {
                Some(link) => Some(next_page(&from, &link).map_err(|fault| route.fail(fault))?),
                None => {
                    tags.sort();
                    tags.dedup();
                    return Ok(tags);
                }
            };
        }
        Err(route.fail(Fault::Pages { limit: PAGES }))
    }
}

/// The tags of a page.
fn page_tags(bytes: &[u8]) -> Result<Vec<String>, Fault> {
    let bad = |source| oci::BadDocument { what: "list of tags", source };
    let tags = serde_json::from_slice::<Page>(bytes).map_err(bad)?.tags.unwrap_or_default();
    match tags.iter().find(|tag| !is_tag(tag)) {
        None => Ok(tags),
        Some(tag) => {
            let why = format!("`{}` is no tag", clean(tag, 100));
            Err(bad(serde::de::Error::custom(why)).into())
        }
    }
}

/// distribution-spec v1.1, § Pulling manifests.
fn is_tag(text: &str) -> bool {
    let letter = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    (1..=128).contains(&text.len())
        && text.bytes().enumerate().all(|(at, b)| letter(b) || (at > 0 && (b == b'.' || b == b'-')))
}

/// The address in `Link: <…>; rel="next"` (RFC 8288), if it is of another page of the same host.
pub(crate) fn next_page(from: &Url, link: &str) -> Result<Url, Fault> {
    let bad = |why| Fault::Redirect { to: format!("`{}`", clean(link, 200)), why };
    let text = link.split_once('<').and_then(|(_, rest)| rest.split_once('>')).map(|(text, _)| text);
    let text = text.filter(|_| link.contains("next")).ok_or_else(|| bad("which is no next page"))?;
    let url = from.join(text).map_err(|_| bad("which is no address"))?;
    match url.origin() == from.origin() {
        true if url == *from => Err(bad("which is the same page again")),
        true => Ok(url),
        false => Err(bad("which is another host")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_tag_is_not_listed() {
        for (tags, known) in [
            (r#"{"tags":["1.0","_a-b","X"]}"#, true),
            (r#"{"tags":null}"#, true),
            (r#"{"tags":["\u001b[2J"]}"#, false),
            (r#"{"tags":[".a"]}"#, false),
            (r#"{"tags":[""]}"#, false),
            (r#"{"tags":["a b"]}"#, false),
            (r#"{"tags":{}}"#, false),
        ] {
            assert_eq!(page_tags(tags.as_bytes()).is_ok(), known, "{tags}");
        }
        assert!(!is_tag(&"x".repeat(129)));
    }

    #[test]
    fn the_next_page_is_of_the_same_host() {
        let from: Url = "https://r.example/v2/a/tags/list?n=2".parse().expect("an address");
        for (link, next) in [
            (
                "</v2/a/tags/list?last=b&n=2>; rel=\"next\"",
                Some("https://r.example/v2/a/tags/list?last=b&n=2"),
            ),
            ("<https://r.example/x>; rel=next", Some("https://r.example/x")),
            ("<https://evil.example/x>; rel=\"next\"", None),
            ("</v2/a/tags/list?n=2>; rel=\"next\"", None),
            ("</x>; rel=\"prev\"", None),
            ("next", None),
        ] {
            assert_eq!(next_page(&from, link).ok().map(|url| url.to_string()).as_deref(), next, "{link}");
        }
    }
}

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
const PAGES: usize = 10_000;

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
    /// What the registry did, and [`Fault::TooLarge`] when it has no end of pages.
    pub async fn tags(&self, repository: &Reference) -> Result<Vec<String>, Error> {
        let mut route = self.push_route(repository, What::Tags)?;
        let mut tags = Vec::new();
        let mut next: Option<Url> = None;
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
                let bad = |source| oci::BadDocument { what: "list of tags", source };
                Ok(serde_json::from_slice::<Page>(&bytes).map_err(bad)?)
            });
            tags.extend(page.map_err(|fault| route.fail(fault))?.tags.unwrap_or_default());
            next = match link {
                Some(link) => Some(next_page(&from, &link).map_err(|fault| route.fail(fault))?),
                None => {
                    tags.sort();
                    tags.dedup();
                    return Ok(tags);
                }
            };
        }
        Err(route.fail(Fault::TooLarge { limit: PAGES as u64 * self.limits().manifest_bytes }))
    }
}

/// The address in `Link: <…>; rel="next"` (RFC 8288), if it is of the same host.
fn next_page(from: &Url, link: &str) -> Result<Url, Fault> {
    let bad = |why| Fault::Redirect { to: format!("`{}`", clean(link, 200)), why };
    let text = link.split_once('<').and_then(|(_, rest)| rest.split_once('>')).map(|(text, _)| text);
    let text = text.filter(|_| link.contains("next")).ok_or_else(|| bad("which is no next page"))?;
    let url = from.join(text).map_err(|_| bad("which is no address"))?;
    match url.origin() == from.origin() {
        true => Ok(url),
        false => Err(bad("which is another host")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
            ("</x>; rel=\"prev\"", None),
            ("next", None),
        ] {
            assert_eq!(next_page(&from, link).ok().map(|url| url.to_string()).as_deref(), next, "{link}");
        }
    }
}

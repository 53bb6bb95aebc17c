//! What a name stands for in the registry itself: what is asked before it is moved there.

use oci::{Digest, Reference, Version};
use reqwest::Method;

use crate::{
    Client, Whom,
    document::ACCEPT,
    error::{Error, Fault, What},
    session::Question,
    token::Access,
    wire::told_digest,
};

impl Client {
    /// The manifest or index that a name stands for in its registry; `None` where it stands for nothing. No mirror is asked,
    /// because it may be behind.
    ///
    /// # Errors
    /// What the registry did.
    pub async fn tagged(&self, name: &Reference) -> Result<Option<Digest>, Error> {
        let Version::Tag(tag) = name.version() else { return Ok(name.digest) };
        let path = format!("manifests/{tag}");
        let question =
            Question { accept: Some(ACCEPT), access: &Access::PUSH, ..Question::read(Method::HEAD, &path) };
        let mut route = self.push_route(name, What::PushedImage)?;
        loop {
            match self.ask(route.endpoint(), &question).await {
                Ok(response) => {
                    self.learn(&route);
                    if let Some(digest) = told_digest(response.headers()) {
                        return Ok(Some(digest));
                    }
                    break;
                }
                Err(Fault::NotFound { .. }) => {
                    self.learn(&route);
                    return Ok(None);
                }
                // A refused HEAD has no body; the same question as a GET says why.
                Err(
                    Fault::Denied { .. }
                    | Fault::Unauthorized { .. }
                    | Fault::Status { status: 400..=499, .. },
                ) => break,
                Err(fault) => route.after(fault).await?,
            }
        }
        match self.manifest(name, None, Whom::Itself).await {
            Ok(document) => Ok(Some(document.descriptor.digest)),
            Err(error) if matches!(*error.fault, Fault::NotFound { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

//! Flags of `docker build` that change nothing here, and flags that are not built yet.

use crate::{arguments::Others, failure::Failure};

/// Warnings for flags that only speed a build up or that mean nothing here.
///
/// # Errors
/// The first flag whose effect a user would miss.
pub fn check(others: &Others) -> Result<Vec<String>, Failure> {
    // Named one by one, with no `..`: a new flag does not compile until someone has decided here.
    let Others {
        rm: _steps_leave_no_containers,
        force_rm: _neither_when_they_fail,
        compress,
        squash,
        cache_from,
        cache_to,
        provenance,
        sbom,
        attest,
        security_opt,
        isolation,
        builder,
    } = others;
    let refused = [
        ("--squash", *squash),
        ("--provenance", provenance.as_deref().is_some_and(|value| value != "false")),
        ("--sbom", sbom.as_deref().is_some_and(|value| value != "false")),
        ("--attest", !attest.is_empty()),
    ];
    if let Some((flag, _)) = refused.into_iter().find(|(_, given)| *given) {
        return Err(Failure::usage(format!("`{flag}` is not supported yet")));
    }
    let warned = [
        ("--compress", *compress, "there is no context to send"),
        ("--cache-from", !cache_from.is_empty(), "remote caches are not supported yet"),
        ("--cache-to", !cache_to.is_empty(), "remote caches are not supported yet"),
        ("--security-opt", !security_opt.is_empty(), "steps have Docker's default confinement"),
        ("--isolation", isolation.is_some(), "steps always run in namespaces"),
        ("--builder", builder.is_some(), "Kiln is its own builder"),
    ];
    let given = warned.into_iter().filter(|(_, given, _)| *given);
    Ok(given.map(|(flag, _, why)| format!("`{flag}` changes nothing: {why}")).collect())
}

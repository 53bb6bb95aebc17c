//! `KILN_LIMITS`: what a layer from elsewhere may take: `layer-size=64g,layer-entries=5000000`.

use engine::Limits;

use super::{BadFlag, size_bytes};

/// The variable.
const NAME: &str = "KILN_LIMITS";

/// The limits that the variable's text gives; what it does not name keeps its default.
pub fn limits(text: &str) -> Result<Limits, BadFlag> {
    let mut limits = Limits::default();
    for pair in text.split(',').map(str::trim).filter(|pair| !pair.is_empty()) {
        let example =
            format!("{NAME}=layer-size=64g,layer-entries=5000000,layer-expansion=1000,free-space=2g");
        let bad = |why: &str| BadFlag::new(NAME, pair, why, &example);
        let (name, value) = pair.split_once('=').ok_or_else(|| bad("expected NAME=VALUE"))?;
        let number = || value.parse().map_err(|_| bad("expected a number"));
        let size = || size_bytes(NAME, value).map_err(|_| bad("expected a size such as 64g or 500m"));
        match name {
            "layer-size" => limits.layer_bytes = size()?,
            "layer-expansion" => limits.layer_expansion = number()?,
            "layer-expansion-from" => limits.layer_expansion_from = size()?,
            "layer-entries" => limits.layer_entries = number()?,
            "free-space" => limits.free_bytes = size()?,
            _ => {
                return Err(bad(
                    "there is no such limit; there are layer-size, layer-expansion, layer-expansion-from, \
                     layer-entries, free-space",
                ));
            }
        }
    }
    Ok(limits)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_named() {
        assert_eq!(limits(""), Ok(Limits::default()));
        let text = "layer-size=64g, layer-expansion=9,layer-expansion-from=1m,layer-entries=7,free-space=0";
        let expected = Limits {
            layer_bytes: 64 << 30,
            layer_expansion: 9,
            layer_expansion_from: 1 << 20,
            layer_entries: 7,
            free_bytes: 0,
        };
        assert_eq!(limits(text), Ok(expected));
        for (text, part) in [
            ("layer-size", "NAME=VALUE"),
            ("layer-size=x", "a size"),
            ("layer-entries=-1", "a number"),
            ("layers=3", "no such limit"),
        ] {
            let said = limits(text).expect_err(text).to_string();
            assert!(said.contains(part), "{text}: {said}");
        }
    }
}

//! `--secret id=ID[,src=FILE|,env=VARIABLE][,type=file|env][,cache-key=content|id]`.

use std::path::PathBuf;

use super::{BadFlag, csv};

/// Where a secret's bytes are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SecretSource {
    /// In a file.
    File(PathBuf),
    /// In a variable of the environment.
    Variable(String),
}

/// A secret as it is given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Secret {
    /// By what steps ask for it.
    pub id: String,
    /// Where it is.
    pub source: SecretSource,
    /// Whether its content counts in the keys of the steps that see it, and not its id alone.
    pub in_keys: bool,
}

/// A secret. Without `src` and `env`, a variable of the id's name is used where there is one, else a file.
pub fn secret(text: &str, is_variable: impl Fn(&str) -> bool) -> Result<Secret, BadFlag> {
    let bad = |why: String| BadFlag::new("--secret", text, why, "--secret id=token,src=token.txt");
    let (mut id, mut file, mut variable, mut kind, mut in_keys) = (None, None, None, None, false);
    for (key, value) in csv::keys(text).map_err(bad)? {
        let value = value.ok_or_else(|| bad(format!("`{key}` needs a value")))?;
        match key.as_str() {
            "id" => id = Some(value),
            "src" | "source" => file = Some(value),
            "env" => variable = Some(value),
            "type" if matches!(value.as_str(), "file" | "env") => kind = Some(value),
            "type" => return Err(bad(format!("`type={value}` is neither file nor env"))),
            "cache-key" => match value.as_str() {
                "content" => in_keys = true,
                "id" => in_keys = false,
                _ => return Err(bad(format!("`cache-key={value}` is neither content nor id"))),
            },
            other => {
                return Err(bad(format!("`{other}` is no key of a secret: id, src, env, type, cache-key")));
            }
        }
    }
    if kind.as_deref() == Some("env") && variable.is_none() {
        variable = file.take();
    }
    let id = id
        .or_else(|| file.as_ref().and_then(|f| f.rsplit('/').next().map(str::to_owned)))
        .or_else(|| variable.clone())
        .filter(|id| !id.is_empty())
        .ok_or_else(|| bad("it has no `id`".to_owned()))?;
    let source = match (file, variable) {
        (Some(_), Some(_)) => return Err(bad("`src` and `env` cannot both be given".to_owned())),
        (Some(file), None) => SecretSource::File(PathBuf::from(file)),
        (None, Some(variable)) => SecretSource::Variable(variable),
        (None, None) if kind.as_deref() != Some("file") && is_variable(&id) => {
            SecretSource::Variable(id.clone())
        }
        (None, None) => SecretSource::File(PathBuf::from(&id)),
    };
    Ok(Secret { id, source, in_keys })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_content_counts_where_that_is_asked_for() {
        for (text, in_keys) in [
            ("id=a,src=b,cache-key=content", true),
            ("id=a,cache-key=id,src=b", false),
            ("id=a,src=b", false),
        ] {
            assert_eq!(secret(text, |_| false).map(|secret| secret.in_keys), Ok(in_keys), "{text}");
        }
    }

    #[test]
    fn secrets_are_files_or_variables() {
        for (text, id, source) in [
            ("id=a,src=/x/y", "a", SecretSource::File("/x/y".into())),
            ("id=a,env=V", "a", SecretSource::Variable("V".to_owned())),
            ("id=V", "V", SecretSource::Variable("V".to_owned())),
            ("id=f", "f", SecretSource::File("f".into())),
            ("type=env,id=a,src=V", "a", SecretSource::Variable("V".to_owned())),
        ] {
            let id = id.to_owned();
            assert_eq!(secret(text, |name| name == "V"), Ok(Secret { id, source, in_keys: false }), "{text}");
        }
        for text in ["", "id=", "id=a,src=b,env=c", "id=a,what=b", "id", "id=a,cache-key", "id=a,cache-key=x"]
        {
            assert!(secret(text, |_| false).is_err(), "{text}");
        }
    }
}

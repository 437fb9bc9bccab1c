//! References to images: `[registry/]name[:tag][@digest]`, as Docker and everybody after it
//! reads them.

use oci_client::Reference;

use crate::{fault::Fault, places::Digest};

/// A reference that was understood.
#[derive(Debug, Clone)]
pub(crate) struct Asked {
    /// With registry and repository filled in.
    pub(crate) reference: Reference,
    pub(crate) digest: Option<Digest>,
}

impl Asked {
    pub(crate) fn parse(text: &str, require_digest: bool) -> Result<Self, Fault> {
        let reference: Reference = text.parse().map_err(|e: oci_client::ParseError| {
            Fault::Reference(format!("{e}; write registry/name@sha256:… or registry/name:tag"))
        })?;
        let digest = match reference.digest() {
            None => None,
            Some(digest) => Some(digest.parse::<Digest>().map_err(Fault::Reference)?),
        };
        if require_digest && digest.is_none() {
            return Err(Fault::Reference(
                "it has no digest, and a tag may mean something else tomorrow; write registry/name@sha256:… \
                 (skopeo inspect --format '{{.Digest}}' docker://registry/name:tag prints it)"
                    .to_owned(),
            ));
        }
        Ok(Self { reference, digest })
    }

    /// `registry/name@sha256:…`.
    pub(crate) fn pinned(&self, digest: &Digest) -> String {
        format!("{}@{digest}", self.name())
    }

    /// `registry/name`.
    fn name(&self) -> String {
        format!("{}/{}", self.reference.registry(), self.reference.repository())
    }

    /// What two callers have in common that ask for the same.
    pub(crate) fn key(&self) -> String {
        match &self.digest {
            // A tag beside a digest says nothing.
            Some(digest) => self.pinned(digest),
            None => format!("{}:{}", self.name(), self.reference.tag().unwrap_or("latest")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIGEST: &str = "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

    #[test]
    fn dockers_defaults_are_filled_in() {
        for (text, key) in [
            ("debian", "docker.io/library/debian:latest".to_owned()),
            ("debian:bookworm", "docker.io/library/debian:bookworm".to_owned()),
            ("user/thing", "docker.io/user/thing:latest".to_owned()),
            ("localhost:5000/a/b:1", "localhost:5000/a/b:1".to_owned()),
            (&format!("ghcr.io/a/b:1@{DIGEST}"), format!("ghcr.io/a/b@{DIGEST}")),
        ] {
            assert_eq!(Asked::parse(text, false).expect(text).key(), key);
        }
    }

    #[test]
    fn what_is_wrong_is_said() {
        for text in [
            "",
            "a/Upper",
            "a b",
            "a:b:c:d",
            "-x",
            "a@sha256:12",
            "a/../b",
            "http://a/b",
            "a@md5:0123",
        ] {
            assert!(matches!(Asked::parse(text, false), Err(Fault::Reference(_))), "{text}");
        }
        let Err(Fault::Reference(why)) = Asked::parse("debian:bookworm", true) else {
            panic!("it has no digest");
        };
        assert!(why.contains("@sha256"), "{why}");
        assert!(Asked::parse(&format!("debian@{DIGEST}"), true).is_ok());
    }
}

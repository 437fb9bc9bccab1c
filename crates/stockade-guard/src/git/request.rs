//! Which requests are git's (gitprotocol-http(5)), read strictly where it matters.
//!
//! What looks like git to a lenient server and is not exactly it is refused: a push that goes by
//! unrecognised is a push without rules.

use http::{HeaderMap, Method, Uri, header::CONTENT_TYPE};

/// The two services of the protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Service {
    /// Reading.
    UploadPack,
    /// Writing.
    ReceivePack,
}

impl Service {
    /// The name in paths and queries.
    pub const fn name(self) -> &'static str {
        match self {
            Self::UploadPack => "git-upload-pack",
            Self::ReceivePack => "git-receive-pack",
        }
    }

    fn of(name: &str) -> Option<Self> {
        [Self::UploadPack, Self::ReceivePack]
            .into_iter()
            .find(|service| service.name() == name)
    }
}

/// A request of the smart protocol.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GitRequest {
    /// The service.
    pub service: Service,
    /// The path of the repository, `/org/repo.git`.
    pub repository: String,
    /// Whether it asks for the references; otherwise it is the service's own request.
    pub advertise: bool,
}

/// Why a request is not one that may pass as git.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotGit {
    /// It is something else, which other rules are for.
    Other,
    /// It is git, or could be read as git, in a way that is not spoken; why.
    Refused(&'static str),
}

const ODD: &str = "the request looks like git's and is not written as git writes it";
const DUMB: &str = "git's protocol without a server program is not spoken; use a server with smart HTTP";
const LFS: &str = "Git LFS is not spoken through the Guard";

impl GitRequest {
    /// Reads a request's head.
    ///
    /// # Errors
    ///
    /// [`NotGit`] says whether others may handle it.
    pub fn read(method: &Method, uri: &Uri, headers: &HeaderMap) -> Result<Self, NotGit> {
        let (path, query) = (uri.path(), uri.query());
        match exact(method, path, query) {
            Some(request) if !plain(&request.repository) => Err(NotGit::Refused(ODD)),
            Some(request) if request.advertise => Ok(request),
            Some(request) => {
                let expected = format!("application/x-{}-request", request.service.name());
                let types: Vec<_> = headers.get_all(CONTENT_TYPE).iter().collect();
                match types.as_slice() {
                    [one] if one.as_bytes() == expected.as_bytes() => Ok(request),
                    _ => Err(NotGit::Refused(ODD)),
                }
            }
            None => Err(resembles(path, query)),
        }
    }
}

/// A request spelled as git spells it.
fn exact(method: &Method, path: &str, query: Option<&str>) -> Option<GitRequest> {
    let request = |service, repository: &str, advertise| {
        Some(GitRequest {
            service,
            repository: repository.to_owned(),
            advertise,
        })
    };
    if let (Some(repository), &Method::GET) = (path.strip_suffix("/info/refs"), method) {
        return request(Service::of(query?.strip_prefix("service=")?)?, repository, true);
    }
    let (repository, last) = path.rsplit_once('/')?;
    match (Service::of(last), query, method) {
        (Some(service), None, &Method::POST) => request(service, repository, false),
        _ => None,
    }
}

/// A path that every server reads alike.
fn plain(path: &str) -> bool {
    let letters = |c: char| c.is_ascii_alphanumeric() || "-._~/".contains(c);
    let part = |part: &str| !part.is_empty() && part != "." && part != "..";
    let Some(inner) = path.strip_prefix('/') else {
        return false;
    };
    path.chars().all(letters) && inner.split('/').all(part)
}

/// What a request that is not exactly git resembles, read as leniently as any server might.
fn resembles(path: &str, query: Option<&str>) -> NotGit {
    let path = loose(path);
    let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
    let ends = |tail: &[&str]| parts.ends_with(tail);
    if parts
        .iter()
        .any(|part| part.contains("git-receive-pack") || part.contains("git-upload-pack"))
    {
        return NotGit::Refused(ODD);
    }
    if parts.windows(2).any(|two| two == ["info", "lfs"]) {
        return NotGit::Refused(LFS);
    }
    let service = query.is_some_and(|query| loose(query).contains("git-"));
    if ends(&["info", "refs"]) {
        return NotGit::Refused(if query.is_none() || !service { DUMB } else { ODD });
    }
    let objects = parts
        .iter()
        .rposition(|part| *part == "objects")
        .map(|at| &parts[at + 1..]);
    let hex = |text: &str, length: usize| text.len() == length && text.bytes().all(|b| b.is_ascii_hexdigit());
    match objects {
        Some(["info", "packs" | "alternates" | "http-alternates"]) => NotGit::Refused(DUMB),
        Some(["pack", name]) if name.starts_with("pack-") => NotGit::Refused(DUMB),
        Some([two, rest]) if hex(two, 2) && (hex(rest, 38) || hex(rest, 62)) => NotGit::Refused(DUMB),
        _ if ends(&["head"]) && parts.iter().any(|part| part.ends_with(".git")) => NotGit::Refused(DUMB),
        _ => NotGit::Other,
    }
}

/// Lower case, decoded until nothing is left to decode, one kind of slash, no parameters of a
/// segment, no dots that lead nowhere.
fn loose(text: &str) -> String {
    let mut text = text.as_bytes().to_vec();
    for _ in 0..8 {
        let decoded = decode(&text);
        if decoded == text {
            break;
        }
        text = decoded;
    }
    let text = String::from_utf8_lossy(&text).to_lowercase().replace('\\', "/");
    let clean = |part: &str| {
        let part = part.split(';').next().unwrap_or_default();
        let part: String = part.chars().filter(|c| !c.is_control() && !c.is_whitespace()).collect();
        part.trim_end_matches('.').to_owned()
    };
    text.split('/').map(clean).collect::<Vec<_>>().join("/")
}

fn decode(text: &[u8]) -> Vec<u8> {
    let digit = |at: usize| text.get(at).and_then(|b| char::from(*b).to_digit(16));
    let (mut out, mut at) = (Vec::with_capacity(text.len()), 0);
    while let Some(byte) = text.get(at) {
        match (byte, digit(at + 1), digit(at + 2)) {
            (b'%', Some(high), Some(low)) => {
                out.push(u8::try_from(high * 16 + low).unwrap_or_default());
                at += 3;
            }
            _ => {
                out.push(*byte);
                at += 1;
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(method: &str, uri: &str, kind: Option<&str>) -> Result<GitRequest, NotGit> {
        let mut headers = HeaderMap::new();
        if let Some(kind) = kind {
            headers.insert(CONTENT_TYPE, kind.parse().unwrap());
        }
        GitRequest::read(&method.parse().unwrap(), &uri.parse().unwrap(), &headers)
    }

    #[test]
    fn the_four_requests_are_recognised() {
        let is = |found: Result<GitRequest, NotGit>, service, advertise| {
            let expected = GitRequest {
                service,
                advertise,
                repository: "/o/r.git".to_owned(),
            };
            assert_eq!(found, Ok(expected));
        };
        let ask = |service: &str| read("GET", &format!("/o/r.git/info/refs?service={service}"), None);
        is(ask("git-upload-pack"), Service::UploadPack, true);
        is(ask("git-receive-pack"), Service::ReceivePack, true);
        let post = |service: &str| {
            let kind = format!("application/x-{service}-request");
            read("POST", &format!("/o/r.git/{service}"), Some(&kind))
        };
        is(post("git-upload-pack"), Service::UploadPack, false);
        is(post("git-receive-pack"), Service::ReceivePack, false);
    }

    #[test]
    fn what_a_lenient_server_could_take_for_git_is_refused() {
        let receive = Some("application/x-git-receive-pack-request");
        for (method, uri, kind) in [
            ("POST", "/o/r/git-receive-pack", None),
            (
                "POST",
                "/o/r/git-receive-pack",
                Some("application/x-git-upload-pack-request"),
            ),
            (
                "POST",
                "/o/r/git-receive-pack",
                Some("application/x-git-receive-pack-request; charset=x"),
            ),
            ("GET", "/o/r/git-receive-pack", None),
            ("PUT", "/o/r/git-receive-pack", receive),
            ("POST", "/o/r/git-receive-pack?x=1", receive),
            ("POST", "/o/r/git-receive-pack/", receive),
            ("POST", "/o/r/git-receive-pack/x", receive),
            ("POST", "/o/r/git-receive-pac%6b", receive),
            ("POST", "/o/r/git-receive-pac%256b", receive),
            ("POST", "/o/r/GIT-RECEIVE-PACK", receive),
            ("POST", "/o/r/git-receive-pack;v=1", receive),
            ("POST", "/o/r%5cgit-receive-pack", receive),
            ("POST", "/o/./r/git-receive-pack", receive),
            ("POST", "/o/../r/git-receive-pack", receive),
            ("POST", "/o//r/git-receive-pack", receive),
            ("POST", "/o/%72/git-receive-pack", receive),
            ("POST", "/git-receive-pack", receive),
            ("GET", "/o/r/info/refs?service=git-receive-pack&x=1", None),
            ("GET", "/o/r/info/refs?x=1&service=git-receive-pack", None),
            ("GET", "/o/r/info/refs?service=git%2dreceive-pack", None),
            ("GET", "/o/r/info/%72efs?service=git-receive-pack", None),
            ("HEAD", "/o/r/info/refs?service=git-receive-pack", None),
        ] {
            assert_eq!(read(method, uri, kind), Err(NotGit::Refused(ODD)), "{method} {uri}");
        }
    }

    #[test]
    fn the_old_protocol_and_lfs_are_refused_and_the_rest_is_left_to_others() {
        let object = format!("/o/r/objects/ab/{}", "c".repeat(38));
        let dumb = [
            "/o/r/info/refs",
            "/o/r.git/HEAD",
            "/o/r/objects/info/packs",
            "/o/r/objects/pack/pack-1.idx",
            "/o/r/info/refs?service=",
            object.as_str(),
        ];
        for uri in dumb {
            assert_eq!(read("GET", uri, None), Err(NotGit::Refused(DUMB)), "{uri}");
        }
        assert_eq!(
            read("POST", "/o/r.git/info/lfs/objects/batch", None),
            Err(NotGit::Refused(LFS))
        );
        for uri in [
            "/",
            "/o/r",
            "/o/r/blob/main/git.rs",
            "/api/v3/repos",
            "/o/r/info",
            "/o/objects/x",
            "/HEAD",
        ] {
            assert_eq!(read("GET", uri, None), Err(NotGit::Other), "{uri}");
        }
    }
}

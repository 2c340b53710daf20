//! A registry on loopback with faults on demand: blobs, uploads and manifests of the distribution API, a token server, and
//! a script of what goes wrong when.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard};

use base64::Engine as _;
use mlrails::digest::Digest;

/// Who is let in.
#[derive(Clone, Default)]
pub enum Door {
    #[default]
    Open,
    /// `user:password`
    Basic(String),
    /// Tokens from here, or from the realm that is named instead; without this `user:password` they are for pulls only.
    Bearer {
        realm: Option<String>,
        login: Option<String>,
    },
}

/// Where uploads are said to be.
#[derive(Clone, Default)]
pub enum Place {
    #[default]
    Relative,
    Absolute,
    /// With a query string of the registry's own.
    Query,
    /// On another origin, which serves the same uploads.
    Elsewhere(String),
}

#[derive(Clone, Default)]
pub struct Settings {
    pub door: Door,
    pub place: Place,
    /// Bodies of uploads that are larger are answered with 413.
    pub largest: Option<usize>,
    /// `OCI-Chunk-Min-Length`
    pub smallest: Option<usize>,
    /// A broken upload is forgotten.
    pub forgets: bool,
    /// A mount is answered with an upload, whatever is there.
    pub never_mounts: bool,
    /// The first chunk is taken for the whole: 201, and the rest is dropped.
    pub takes_a_chunk_for_all: bool,
}

/// Something that goes wrong, once: at the next request with `method` whose path contains `part`.
pub struct Fault {
    pub method: &'static str,
    pub part: String,
    /// So many bytes of the request's body are taken (and kept, where it is an upload) before it happens; None takes all.
    pub after: Option<usize>,
    pub act: Act,
}

pub enum Act {
    /// The connection is reset.
    Reset,
    /// This is answered instead; 401 comes with the door's challenge.
    Answer(u16, Vec<(&'static str, String)>),
    /// It is done, and the connection closed without a word.
    Swallow,
    /// It is done, and the answer changed on its way.
    Change(fn(&mut Answer)),
}

#[derive(Default)]
pub struct Answer {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    /// The body is cut off here.
    pub cut: Option<usize>,
}

impl Answer {
    fn new(status: u16) -> Self {
        Self {
            status,
            ..Self::default()
        }
    }

    fn with(mut self, name: &str, value: impl ToString) -> Self {
        self.headers.push((name.to_owned(), value.to_string()));
        self
    }

    fn body(mut self, bytes: Vec<u8>) -> Self {
        self.body = bytes;
        self
    }
}

/// A request as it came.
#[derive(Debug, Clone)]
pub struct Asked {
    pub method: String,
    /// With its query.
    pub path: String,
    pub headers: BTreeMap<String, String>,
    /// How much of its body was read.
    pub read: usize,
}

impl Asked {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(String::as_str)
    }

    fn query(&self, name: &str) -> Option<String> {
        let (_, query) = self.path.split_once('?')?;
        let mut pairs = query.split('&').filter_map(|pair| pair.split_once('='));
        let (_, value) = pairs.find(|(key, _)| *key == name)?;
        Some(value.replace("%3A", ":").replace("%2F", "/"))
    }
}

#[derive(Default)]
struct Kept {
    blobs: BTreeMap<String, BTreeMap<String, Vec<u8>>>,
    /// By repository and tag or digest: media type and content.
    manifests: BTreeMap<(String, String), (String, Vec<u8>)>,
    uploads: BTreeMap<String, Vec<u8>>,
    tokens: BTreeSet<String>,
    made: usize,
}

struct Shared {
    settings: Settings,
    kept: Mutex<Kept>,
    script: Mutex<Vec<Fault>>,
    sent: std::sync::atomic::AtomicUsize,
}

/// One origin of a registry; serves until the test process ends.
pub struct Server {
    /// `127.0.0.1:PORT`
    pub host: String,
    shared: Arc<Shared>,
    asked: Arc<Mutex<Vec<Asked>>>,
}

impl Server {
    pub fn start(settings: Settings) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let shared = Arc::new(Shared {
            settings,
            kept: Mutex::default(),
            script: Mutex::default(),
            sent: Default::default(),
        });
        Self::serve(listener, shared, true)
    }

    /// A registry, and another origin that serves the same uploads and gives its tokens, with no door of its own.
    /// `settings` are told the other one's host.
    pub fn pair(settings: impl FnOnce(&str) -> Settings) -> (Self, Self) {
        let other = TcpListener::bind("127.0.0.1:0").unwrap();
        let settings = settings(&other.local_addr().unwrap().to_string());
        let server = Self::start(settings);
        let other = Self::serve(other, server.shared.clone(), false);
        (server, other)
    }

    fn serve(listener: TcpListener, shared: Arc<Shared>, guarded: bool) -> Self {
        let host = listener.local_addr().unwrap().to_string();
        let asked: Arc<Mutex<Vec<Asked>>> = Arc::default();
        let (log, served, own) = (asked.clone(), shared.clone(), host.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (log, served, own) = (log.clone(), served.clone(), own.clone());
                std::thread::spawn(move || {
                    let _ = served.answer(stream, &log, &own, guarded);
                });
            }
        });
        Self { host, shared, asked }
    }

    /// Adds to the script; the first that fits a request is used up by it.
    pub fn fault(&self, method: &'static str, part: &str, after: Option<usize>, act: Act) {
        self.shared.script.lock().unwrap().push(Fault {
            method,
            part: part.to_owned(),
            after,
            act,
        });
    }

    /// Faults of the script that have not happened.
    pub fn left(&self) -> usize {
        self.shared.script.lock().unwrap().len()
    }

    /// What was asked since the last call.
    pub fn asked(&self) -> Vec<Asked> {
        std::mem::take(&mut self.asked.lock().unwrap())
    }

    pub fn blob(&self, repository: &str, digest: Digest) -> Option<Vec<u8>> {
        self.kept()
            .blobs
            .get(repository)?
            .get(&digest.to_string())
            .cloned()
    }

    pub fn put_blob(&self, repository: &str, content: &[u8]) -> Digest {
        let digest = Digest::of(content);
        let mut kept = self.kept();
        let blobs = kept.blobs.entry(repository.to_owned()).or_default();
        blobs.insert(digest.to_string(), content.to_vec());
        digest
    }

    /// Loses a blob, as a registry's collector might.
    pub fn drop_blob(&self, repository: &str, digest: Digest) {
        if let Some(blobs) = self.kept().blobs.get_mut(repository) {
            blobs.remove(&digest.to_string());
        }
    }

    pub fn manifest(&self, repository: &str, name: &str) -> Option<Vec<u8>> {
        let key = (repository.to_owned(), name.to_owned());
        self.kept().manifests.get(&key).map(|(_, bytes)| bytes.clone())
    }

    pub fn put_manifest(&self, repository: &str, name: &str, bytes: &[u8]) {
        let parsed: serde_json::Value = serde_json::from_slice(bytes).unwrap();
        let kind = parsed["mediaType"].as_str().unwrap().to_owned();
        for name in [name.to_owned(), Digest::of(bytes).to_string()] {
            let key = (repository.to_owned(), name);
            self.kept().manifests.insert(key, (kind.clone(), bytes.to_vec()));
        }
    }

    /// Bytes of bodies that were answered so far.
    pub fn sent(&self) -> usize {
        self.shared.sent.load(std::sync::atomic::Ordering::SeqCst)
    }

    /// All tokens given so far are worth nothing any more.
    pub fn revoke(&self) {
        self.kept().tokens.clear();
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.shared.kept.lock().unwrap()
    }
}

impl Shared {
    fn answer(
        &self,
        stream: TcpStream,
        log: &Mutex<Vec<Asked>>,
        own: &str,
        guarded: bool,
    ) -> std::io::Result<()> {
        let mut reader = BufReader::new(stream.try_clone()?);
        let Some(mut asked) = read_head(&mut reader)? else {
            return Ok(());
        };
        let length: usize = asked
            .header("content-length")
            .map_or(0, |text| text.parse().unwrap());
        let fault = self.scripted(&asked);
        let after = fault
            .as_ref()
            .and_then(|fault| fault.after)
            .unwrap_or(length)
            .min(length);
        let mut body = vec![0; after];
        reader.read_exact(&mut body)?;
        asked.read = after;
        log.lock().unwrap().push(asked.clone());
        let is_whole = after == length;
        let answer = match fault.map(|fault| fault.act) {
            Some(Act::Reset) => {
                self.keep_part(&asked, &body);
                // What was not read makes this a reset, and not an end.
                return Ok(());
            }
            Some(Act::Answer(status, headers)) => {
                self.keep_part(&asked, &body);
                let mut answer = Answer::new(status);
                if status == 401 {
                    answer = self.challenge(own);
                }
                for (name, value) in headers {
                    answer = answer.with(name, value);
                }
                answer
            }
            Some(Act::Swallow) => {
                assert!(is_whole);
                self.done(&asked, body, own, guarded);
                return Ok(());
            }
            Some(Act::Change(change)) => {
                let mut answer = self.done(&asked, body, own, guarded);
                change(&mut answer);
                answer
            }
            None => self.done(&asked, body, own, guarded),
        };
        if asked.method != "HEAD" {
            let length = answer.body.len();
            self.sent.fetch_add(length, std::sync::atomic::Ordering::SeqCst);
        }
        send(stream, &answer, asked.method == "HEAD")?;
        if !is_whole {
            // An answer that comes early is only read where the connection is not reset behind it.
            std::io::copy(&mut reader, &mut std::io::sink())?;
        }
        Ok(())
    }

    fn scripted(&self, asked: &Asked) -> Option<Fault> {
        let mut script = self.script.lock().unwrap();
        let fits = |fault: &Fault| fault.method == asked.method && asked.path.contains(&fault.part);
        let at = script.iter().position(fits)?;
        Some(script.remove(at))
    }

    fn keep_part(&self, asked: &Asked, body: &[u8]) {
        let Some(id) = upload_id(asked) else { return };
        let mut kept = self.kept.lock().unwrap();
        if self.settings.forgets {
            kept.uploads.remove(&id);
        } else if let Some(upload) = kept.uploads.get_mut(&id) {
            upload.extend_from_slice(body);
        }
    }

    fn challenge(&self, own: &str) -> Answer {
        let answer = Answer::new(401);
        match &self.settings.door {
            Door::Open => answer,
            Door::Basic(_) => answer.with("WWW-Authenticate", "Basic realm=\"tests\""),
            Door::Bearer { realm, .. } => {
                let realm = realm.clone().unwrap_or_else(|| format!("http://{own}/token"));
                answer.with(
                    "WWW-Authenticate",
                    format!("Bearer realm=\"{realm}\",service=\"tests\""),
                )
            }
        }
    }

    fn is_let_in(&self, asked: &Asked) -> bool {
        let shown = asked.header("authorization").unwrap_or_default();
        match &self.settings.door {
            Door::Open => true,
            Door::Basic(login) => shown == basic(login),
            Door::Bearer { .. } => {
                let kept = self.kept.lock().unwrap();
                let token = shown
                    .strip_prefix("Bearer ")
                    .filter(|token| kept.tokens.contains(*token));
                let reads = asked.method == "GET" || asked.method == "HEAD";
                token.is_some_and(|token| reads || token.ends_with("push"))
            }
        }
    }

    fn token(&self, asked: &Asked) -> Answer {
        let Door::Bearer { login, .. } = &self.settings.door else {
            return Answer::new(404);
        };
        let shown = asked.header("authorization");
        let may_push = login.is_none() || shown == login.as_deref().map(basic).as_deref();
        if shown.is_some() && !may_push {
            return Answer::new(401);
        }
        let mut kept = self.kept.lock().unwrap();
        kept.made += 1;
        let token = format!("{}-{}", kept.made, if may_push { "push" } else { "pull" });
        kept.tokens.insert(token.clone());
        let body = serde_json::json!({ "token": token, "expires_in": 300 });
        Answer::new(200)
            .with("Content-Type", "application/json")
            .body(body.to_string().into_bytes())
    }

    fn done(&self, asked: &Asked, body: Vec<u8>, own: &str, guarded: bool) -> Answer {
        let path = asked.path.split('?').next().unwrap_or_default();
        if path == "/token" {
            return self.token(asked);
        }
        if guarded && !self.is_let_in(asked) {
            return self.challenge(own);
        }
        let Some(path) = path.strip_prefix("/v2/") else {
            return Answer::new(404);
        };
        if path.is_empty() {
            return Answer::new(200);
        }
        let mut kept = self.kept.lock().unwrap();
        if let Some((repository, _)) = path.split_once("/blobs/uploads/") {
            return self.upload(&mut kept, repository, asked, body, own);
        }
        if let Some((repository, digest)) = path.split_once("/blobs/") {
            let found = kept.blobs.get(repository).and_then(|blobs| blobs.get(digest));
            return match found {
                Some(content) => ranged(asked, content),
                None => Answer::new(404),
            };
        }
        let Some((repository, name)) = path.split_once("/manifests/") else {
            return Answer::new(404);
        };
        let key = (repository.to_owned(), name.to_owned());
        if asked.method != "PUT" {
            return match kept.manifests.get(&key) {
                Some((kind, content)) => Answer::new(200)
                    .with("Content-Type", kind)
                    .with("Docker-Content-Digest", Digest::of(content))
                    .body(content.clone()),
                None => Answer::new(404),
            };
        }
        if let Some(missing) = missing(&kept, repository, &body) {
            return Answer::new(404).with("Content-Type", "application/json").body(
                format!("{{\"errors\":[{{\"code\":\"MANIFEST_BLOB_UNKNOWN\",\"detail\":\"{missing}\"}}]}}")
                    .into(),
            );
        }
        let digest = Digest::of(&body).to_string();
        let kind = asked.header("content-type").unwrap_or_default().to_owned();
        let by_digest = (repository.to_owned(), digest.clone());
        kept.manifests.insert(by_digest, (kind.clone(), body.clone()));
        kept.manifests.insert(key, (kind, body));
        Answer::new(201).with("Docker-Content-Digest", digest)
    }

    fn upload(&self, kept: &mut Kept, repository: &str, asked: &Asked, body: Vec<u8>, own: &str) -> Answer {
        let settings = &self.settings;
        if asked.method == "POST" {
            if let (Some(digest), Some(from), false) =
                (asked.query("mount"), asked.query("from"), settings.never_mounts)
                && let Some(content) = kept
                    .blobs
                    .get(&from)
                    .and_then(|blobs| blobs.get(&digest))
                    .cloned()
            {
                kept.blobs
                    .entry(repository.to_owned())
                    .or_default()
                    .insert(digest, content);
                return Answer::new(201);
            }
            kept.made += 1;
            let id = format!("u{}", kept.made);
            kept.uploads.insert(id.clone(), Vec::new());
            return self.opened(202, repository, &id, 0, own);
        }
        let Some(id) = upload_id(asked).filter(|id| kept.uploads.contains_key(id)) else {
            return Answer::new(404);
        };
        if matches!(settings.place, Place::Query) && asked.query("state").as_deref() != Some("a%20b%2Bc") {
            return Answer::new(400);
        }
        if settings.largest.is_some_and(|largest| body.len() > largest) {
            return Answer::new(413);
        }
        let upload = kept.uploads.get_mut(&id).unwrap();
        match asked.method.as_str() {
            "GET" => self.opened(204, repository, &id, upload.len(), own),
            "PATCH" => {
                let first = asked
                    .header("content-range")
                    .and_then(|range| range.split_once('-'));
                let is_next = first.is_none_or(|(first, _)| first == upload.len().to_string());
                if !is_next {
                    return self.opened(416, repository, &id, upload.len(), own);
                }
                upload.extend_from_slice(&body);
                let length = upload.len();
                if settings.takes_a_chunk_for_all {
                    return Answer::new(201);
                }
                self.opened(202, repository, &id, length, own)
            }
            "PUT" => {
                upload.extend_from_slice(&body);
                let content = kept.uploads.remove(&id).unwrap();
                let digest = Digest::of(&content).to_string();
                if asked.query("digest").as_deref() != Some(&digest) {
                    return Answer::new(400)
                        .with("Content-Type", "application/json")
                        .body(b"{\"errors\":[{\"code\":\"DIGEST_INVALID\"}]}".to_vec());
                }
                kept.blobs
                    .entry(repository.to_owned())
                    .or_default()
                    .insert(digest.clone(), content);
                Answer::new(201).with("Docker-Content-Digest", digest)
            }
            _ => Answer::new(405),
        }
    }

    fn opened(&self, status: u16, repository: &str, id: &str, length: usize, own: &str) -> Answer {
        let path = format!("/v2/{repository}/blobs/uploads/{id}");
        let location = match &self.settings.place {
            Place::Relative => path,
            Place::Absolute => format!("http://{own}{path}"),
            Place::Query => format!("{path}?state=a%20b%2Bc"),
            Place::Elsewhere(host) => format!("http://{host}{path}"),
        };
        let mut answer = Answer::new(status)
            .with("Location", location)
            .with("Range", format!("0-{}", length.saturating_sub(1)));
        if let Some(smallest) = self.settings.smallest {
            answer = answer.with("OCI-Chunk-Min-Length", smallest);
        }
        answer
    }
}

fn read_head(reader: &mut BufReader<TcpStream>) -> std::io::Result<Option<Asked>> {
    let mut line = String::new();
    if reader.read_line(&mut line)? == 0 {
        return Ok(None);
    }
    let mut words = line.split(' ');
    let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let mut asked = Asked {
        method: method.to_owned(),
        path: path.to_owned(),
        headers: BTreeMap::new(),
        read: 0,
    };
    let mut header = String::new();
    while reader.read_line(&mut header)? > 2 {
        if let Some((name, value)) = header.split_once(':') {
            asked.headers.insert(name.to_lowercase(), value.trim().to_owned());
        }
        header.clear();
    }
    Ok(Some(asked))
}

fn send(mut stream: TcpStream, answer: &Answer, is_head: bool) -> std::io::Result<()> {
    let mut head = format!(
        "HTTP/1.1 {} X\r\nContent-Length: {}\r\nConnection: close\r\n",
        answer.status,
        answer.body.len()
    );
    for (name, value) in &answer.headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    stream.write_all(format!("{head}\r\n").as_bytes())?;
    if !is_head {
        let end = answer.cut.unwrap_or(answer.body.len());
        stream.write_all(&answer.body[..end])?;
    }
    stream.shutdown(std::net::Shutdown::Write)
}

fn basic(login: &str) -> String {
    format!(
        "Basic {}",
        base64::engine::general_purpose::STANDARD.encode(login)
    )
}

fn upload_id(asked: &Asked) -> Option<String> {
    let (_, id) = asked.path.split_once("/blobs/uploads/")?;
    let id = id.split('?').next()?;
    (!id.is_empty()).then(|| id.to_owned())
}

/// What a manifest or an index names and the repository does not have.
fn missing(kept: &Kept, repository: &str, manifest: &[u8]) -> Option<String> {
    let value: serde_json::Value = serde_json::from_slice(manifest).unwrap();
    let digests = |list: &serde_json::Value| -> Vec<String> {
        let entries = list.as_array().into_iter().flatten();
        entries
            .map(|entry| entry["digest"].as_str().unwrap().to_owned())
            .collect()
    };
    let mut blobs = digests(&value["layers"]);
    blobs.extend(value["config"]["digest"].as_str().map(str::to_owned));
    let has = |digest: &String| {
        kept.blobs
            .get(repository)
            .is_some_and(|blobs| blobs.contains_key(digest))
    };
    let children = digests(&value["manifests"]);
    let known = |digest: &String| {
        kept.manifests
            .contains_key(&(repository.to_owned(), digest.clone()))
    };
    blobs
        .into_iter()
        .find(|digest| !has(digest))
        .or_else(|| children.into_iter().find(|digest| !known(digest)))
}

fn ranged(asked: &Asked, content: &[u8]) -> Answer {
    let start = asked.header("range").and_then(|range| {
        range
            .strip_prefix("bytes=")?
            .split('-')
            .next()?
            .parse::<usize>()
            .ok()
    });
    match start {
        Some(start) if start < content.len() => Answer::new(206)
            .with(
                "Content-Range",
                format!("bytes {start}-{}/{}", content.len() - 1, content.len()),
            )
            .body(content[start..].to_vec()),
        _ => Answer::new(200).body(content.to_vec()),
    }
}

//! Who is shown what: the registry's challenge, tokens, and the rule that credentials reach their own origin only.
//!
//! One [`Host`] per registry. The challenge is asked for once and again after any 401; tokens are kept per scope. The
//! login of a registry goes to the registry itself (Basic) or to the token server that it names, and to a token server
//! on another origin only where that is evidently the registry's own: see [`Host::may_hear`].
//!
//! Sources: Docker registry v2 token authentication (specification, JWT, OAuth2); RFC 9110 section 11.6.1.

use std::collections::HashMap;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, Instant};

use serde::Deserialize;
use tokio::sync::Mutex;

use super::keychain::{Keychain, Login};
use super::{RegistryError, Who};
use crate::http::{
    Client, Credentials, Method, Redacted, Redirects, Request, Response, StatusCode, Url, is_loopback,
    same_origin,
};
use crate::oci::Reference;

/// The largest token answer that is read, in bytes.
const LARGEST_TOKEN: u64 = 64 << 10;

/// A repository and what is to be done with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Scope {
    repository: String,
    actions: &'static str,
}

impl Scope {
    pub(super) fn pull(repository: &str) -> Self {
        Self {
            repository: repository.to_owned(),
            actions: "pull",
        }
    }

    pub(super) fn push(repository: &str) -> Self {
        Self {
            repository: repository.to_owned(),
            actions: "pull,push",
        }
    }
}

impl std::fmt::Display for Scope {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "repository:{}:{}", self.repository, self.actions)
    }
}

/// One registry.
pub(super) struct Host {
    /// As references name it.
    name: String,
    /// `https://host:port/`
    base: Url,
    client: Client,
    keychain: Keychain,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    challenge: Option<Challenge>,
    /// By scopes, in their order. The login may differ by repository, and the scope says which one it is.
    tokens: HashMap<String, Token>,
    /// The realm that a login was kept from.
    withheld: Option<String>,
}

#[derive(Clone)]
struct Token {
    text: String,
    until: Instant,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Challenge {
    Open,
    Basic,
    Bearer { realm: String, service: Option<String> },
}

impl Host {
    pub(super) fn new(
        reference: &Reference,
        client: Client,
        keychain: Keychain,
    ) -> Result<Self, RegistryError> {
        let parse = |scheme: &str| {
            Url::parse(&format!("{scheme}://{}/", reference.api_host())).map_err(|_| {
                RegistryError::NotARegistry {
                    registry: reference.registry().to_owned(),
                    reason: "it is not a host name".to_owned(),
                }
            })
        };
        let plain = parse("http")?;
        // `may_carry_credentials` is true of plain http for loopback and declared hosts only.
        let base = if client.may_carry_credentials(&plain) {
            plain
        } else {
            parse("https")?
        };
        Ok(Self {
            name: reference.registry().to_owned(),
            base,
            client,
            keychain,
            state: Mutex::default(),
        })
    }

    /// `/v2/<repository>/<rest>` on this registry.
    pub(super) fn url(&self, repository: &str, rest: &str) -> Url {
        let mut url = self.base.clone();
        url.set_path(&format!("/v2/{repository}/{rest}"));
        url
    }

    pub(super) fn is_own(&self, url: &Url) -> bool {
        same_origin(url, &self.base)
    }

    /// An upload's `Location`: absolute or relative to what answered.
    pub(super) fn location(&self, response: &Response) -> Result<Url, RegistryError> {
        let wrong = |reason: &str| RegistryError::NotARegistry {
            registry: self.name.clone(),
            reason: reason.to_owned(),
        };
        let text = response
            .header("location")
            .ok_or_else(|| wrong("an upload without a Location"))?;
        let mut url = response
            .url
            .join(text)
            .map_err(|_| wrong("an upload's Location is not a URL"))?;
        if !url.username().is_empty() || url.password().is_some() || !matches!(url.scheme(), "http" | "https")
        {
            return Err(wrong("an upload's Location is not a plain http or https URL"));
        }
        if self.base.scheme() == "https" && url.scheme() == "http" {
            if url.host() != self.base.host() {
                return Err(wrong("an upload's Location leaves https for http"));
            }
            // A proxy that ends TLS and did not tell the registry behind it.
            url = self
                .base
                .join(&url[url::Position::BeforePath..])
                .map_err(|_| wrong("an upload's Location is not a URL"))?;
        }
        Ok(url)
    }

    /// Sends `request` for `scopes`, the first of which is what it is about; negotiates again after a 401. Every other
    /// status is an answer. A URL of another origin is asked without credentials.
    pub(super) async fn send(&self, request: Request, scopes: &[Scope]) -> Result<Response, RegistryError> {
        let mut negotiated = false;
        loop {
            let own = self.is_own(&request.url);
            let credentials = if own { self.authorize(scopes).await? } else { None };
            let response = self
                .client
                .send_any(request.clone().credentials(credentials))
                .await?;
            let challenged = response.status == StatusCode::UNAUTHORIZED && self.is_own(&response.url);
            if !challenged || negotiated {
                return Ok(response);
            }
            negotiated = true;
            self.negotiate(&response, scopes).await?;
        }
    }

    /// Like [`Host::send`], once, for a request whose body is read as it leaves. After a 401 the challenge is taken up and
    /// the answer handed back all the same: only the caller knows what to send again.
    pub(super) async fn send_stream(
        &self,
        request: &Request,
        scopes: &[Scope],
        body: impl Fn(&Url) -> reqwest::Body,
        pulse: &AtomicU64,
    ) -> Result<Response, RegistryError> {
        let credentials = match self.is_own(&request.url) {
            true => self.authorize(scopes).await?,
            false => None,
        };
        let request = request.clone().credentials(credentials);
        let response = self.client.send_with_body(&request, body, pulse).await?;
        if response.status == StatusCode::UNAUTHORIZED && self.is_own(&response.url) {
            self.negotiate(&response, scopes).await?;
        }
        Ok(response)
    }

    /// What to send along for `scopes`.
    pub(super) async fn authorize(&self, scopes: &[Scope]) -> Result<Option<Credentials>, RegistryError> {
        let mut state = self.state.lock().await;
        let challenge = match &state.challenge {
            Some(challenge) => challenge.clone(),
            None => {
                let challenge = self.ping().await?;
                state.challenge = Some(challenge.clone());
                challenge
            }
        };
        match challenge {
            Challenge::Open => Ok(None),
            Challenge::Basic => Ok(match self.login(scopes).await? {
                Some(Login::Password { user, password }) => Some(Credentials::Basic { user, password }),
                Some(Login::Bearer(token)) => Some(Credentials::Bearer(token)),
                _ => None,
            }),
            Challenge::Bearer { realm, service } => {
                let key = scopes.iter().map(Scope::to_string).collect::<Vec<_>>().join(" ");
                if let Some(token) = state.tokens.get(&key)
                    && token.until > Instant::now()
                {
                    return Ok(Some(Credentials::Bearer(token.text.clone())));
                }
                let login = self.login(scopes).await?;
                if let Some(Login::Bearer(token)) = login {
                    return Ok(Some(Credentials::Bearer(token)));
                }
                let realm = self.realm(&realm)?;
                let login = match login {
                    Some(_) if !self.may_hear(&realm).await? => {
                        state.withheld = Some(realm.origin().ascii_serialization());
                        None
                    }
                    login => login,
                };
                let token = self.token(&realm, service.as_deref(), scopes, login).await?;
                state.tokens.insert(key, token.clone());
                Ok(Some(Credentials::Bearer(token.text)))
            }
        }
    }

    /// After a 401: takes up its challenge and forgets the token that was refused.
    pub(super) async fn negotiate(&self, response: &Response, scopes: &[Scope]) -> Result<(), RegistryError> {
        let mut state = self.state.lock().await;
        if let Some(challenge) = choose(&response.headers) {
            if state.challenge.as_ref() != Some(&challenge) {
                state.tokens.clear();
            }
            state.challenge = Some(challenge);
        }
        let key = scopes.iter().map(Scope::to_string).collect::<Vec<_>>().join(" ");
        state.tokens.remove(&key);
        Ok(())
    }

    /// The error for a final 401 or 403.
    pub(super) async fn denied(
        &self,
        status: StatusCode,
        repository: &str,
        action: &'static str,
    ) -> RegistryError {
        let withheld = self.state.lock().await.withheld.clone();
        let login = self.login(&[Scope::pull(repository)]).await;
        let who = match (withheld, login) {
            (Some(realm), _) => Who::Withheld { realm },
            (None, Ok(Some(_))) => Who::Login,
            (None, _) => Who::Anonymous,
        };
        RegistryError::Denied {
            registry: self.name.clone(),
            repository: repository.to_owned(),
            action,
            status,
            who,
        }
    }

    async fn login(&self, scopes: &[Scope]) -> Result<Option<Login>, RegistryError> {
        let Some(scope) = scopes.first() else {
            return Ok(None);
        };
        let reference = Reference::of_name(&format!("{}/{}", self.name, scope.repository))?;
        Ok(self.keychain.login(&reference).await?)
    }

    async fn ping(&self) -> Result<Challenge, RegistryError> {
        let mut url = self.base.clone();
        url.set_path("/v2/");
        let response = self.client.send_any(Request::get(url)).await?;
        match response.status.as_u16() {
            401 if self.is_own(&response.url) => {
                choose(&response.headers).ok_or_else(|| RegistryError::NotARegistry {
                    registry: self.name.clone(),
                    reason: "it asks for credentials in no way that is known (Basic, Bearer)".to_owned(),
                })
            }
            200..=299 => Ok(Challenge::Open),
            // Some registries answer here only to those who are logged in; the next 401 says how.
            403..=405 => Ok(Challenge::Open),
            _ => Err(response.into_error().await.into()),
        }
    }

    /// The realm as a URL that may be asked at all.
    fn realm(&self, realm: &str) -> Result<Url, RegistryError> {
        let refuse = |rule| RegistryError::Realm {
            registry: self.name.clone(),
            realm: realm.chars().filter(|c| !c.is_control()).take(120).collect(),
            rule,
        };
        let url = Url::parse(realm).map_err(|_| refuse("it is not a URL"))?;
        if !url.username().is_empty() || url.password().is_some() {
            return Err(RegistryError::Realm {
                registry: self.name.clone(),
                realm: Redacted(&url).to_string(),
                rule: "it carries credentials",
            });
        }
        match url.scheme() {
            "https" => Ok(url),
            "http" if self.client.may_carry_credentials(&url) => Ok(url),
            _ => Err(refuse("it is neither https nor a host that is declared insecure")),
        }
    }

    /// Whether the token server at `realm` may hear this registry's login: it is the registry's own origin; or it is
    /// reached by https and is the registry's host on another port, its parent domain or a sibling below that (where
    /// the registry is called `registry…`: `registry-1.docker.io` and `auth.docker.io`); or the user has a login for
    /// that very host. Everybody else gets to see an anonymous request: any registry may name any realm.
    async fn may_hear(&self, realm: &Url) -> Result<bool, RegistryError> {
        if self.is_own(realm) {
            return Ok(true);
        }
        let (Some(host), Some(own)) = (realm.host_str(), self.base.host_str()) else {
            return Ok(false);
        };
        if realm.scheme() == "https" && self.base.scheme() == "https" && is_family(own, host) {
            return Ok(true);
        }
        let authority = match realm.port() {
            Some(port) => format!("{host}:{port}"),
            None => host.to_owned(),
        };
        Ok(self.keychain.login_of_host(&authority).await?.is_some())
    }

    async fn token(
        &self,
        realm: &Url,
        service: Option<&str>,
        scopes: &[Scope],
        login: Option<Login>,
    ) -> Result<Token, RegistryError> {
        if let Some(Login::Identity(refresh)) = &login {
            let response = self.exchange(realm, service, scopes, refresh).await?;
            if response.status != StatusCode::NOT_FOUND {
                return self.read_token(response, scopes, realm).await;
            }
        }
        let mut url = realm.clone();
        {
            let mut query = url.query_pairs_mut();
            if let Some(service) = service {
                query.append_pair("service", service);
            }
            // What is asked for first: some token servers read only that.
            for scope in scopes {
                query.append_pair("scope", &scope.to_string());
            }
        }
        let credentials = match login {
            Some(Login::Password { user, password }) => Some(Credentials::Basic { user, password }),
            Some(Login::Identity(token)) => Some(Credentials::Basic {
                user: "<token>".to_owned(),
                password: token,
            }),
            _ => None,
        };
        let response = self
            .client
            .send_any(Request::get(url).credentials(credentials))
            .await?;
        self.read_token(response, scopes, realm).await
    }

    /// OAuth2: an identity token for an access token. Redirects are not followed: the body is the secret.
    async fn exchange(
        &self,
        realm: &Url,
        service: Option<&str>,
        scopes: &[Scope],
        refresh: &str,
    ) -> Result<Response, RegistryError> {
        let scope = scopes.iter().map(Scope::to_string).collect::<Vec<_>>().join(" ");
        let form = url::form_urlencoded::Serializer::new(String::new())
            .append_pair("grant_type", "refresh_token")
            .append_pair("service", service.unwrap_or(&self.name))
            .append_pair("client_id", "mlrails")
            .append_pair("scope", &scope)
            .append_pair("refresh_token", refresh)
            .finish();
        let request = Request::new(Method::POST, realm.clone())
            .header(reqwest::header::CONTENT_TYPE, "application/x-www-form-urlencoded")
            .body(form)
            .redirects(Redirects::Return);
        Ok(self.client.send_any(request).await?)
    }

    async fn read_token(
        &self,
        response: Response,
        scopes: &[Scope],
        realm: &Url,
    ) -> Result<Token, RegistryError> {
        #[derive(Deserialize)]
        struct Answer {
            token: Option<String>,
            access_token: Option<String>,
            expires_in: Option<u64>,
        }
        let status = response.status;
        if matches!(status.as_u16(), 401 | 403) {
            let repository = scopes.first().map_or("", |scope| scope.repository.as_str());
            return Err(RegistryError::Denied {
                registry: realm.host_str().unwrap_or_default().to_owned(),
                repository: repository.to_owned(),
                action: "get a token for",
                status,
                who: match self.login(scopes).await {
                    Ok(Some(_)) => Who::Login,
                    _ => Who::Anonymous,
                },
            });
        }
        if !status.is_success() {
            return Err(response.into_error().await.into());
        }
        let body = response.bytes(LARGEST_TOKEN).await?;
        let wrong = || RegistryError::NotARegistry {
            registry: self.name.clone(),
            reason: "its token server did not answer with a token".to_owned(),
        };
        let answer: Answer = serde_json::from_slice(&body).map_err(|_| wrong())?;
        let text = [answer.token, answer.access_token]
            .into_iter()
            .flatten()
            .find(|token| !token.is_empty())
            .ok_or_else(wrong)?;
        // 60 s is the specification's default. A little less, so that none expires on its way.
        let seconds = answer.expires_in.unwrap_or(60).clamp(10, 3600) - 5;
        Ok(Token {
            text,
            until: Instant::now() + Duration::from_secs(seconds),
        })
    }
}

/// Whether `other` is evidently run by whoever runs the registry `own`.
fn is_family(own: &str, other: &str) -> bool {
    if own == other {
        return true;
    }
    let Some((first, parent)) = own.split_once('.') else {
        return false;
    };
    // Without a list of public suffixes only a registry's own naming shows that its parent is not a whole country's.
    let is_named = first.starts_with("registry") && parent.contains('.');
    is_named && !is_loopback_name(own) && (other == parent || other.ends_with(&format!(".{parent}")))
}

fn is_loopback_name(host: &str) -> bool {
    Url::parse(&format!("http://{host}/")).is_ok_and(|url| is_loopback(&url))
}

/// The best of a 401's challenges: Bearer before Basic, whatever their order and number of headers.
fn choose(headers: &reqwest::header::HeaderMap) -> Option<Challenge> {
    let challenges: Vec<(String, HashMap<String, String>)> = headers
        .get_all("www-authenticate")
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(parse_challenges)
        .collect();
    let bearer = challenges.iter().find_map(|(scheme, parameters)| {
        (scheme == "bearer").then_some(Challenge::Bearer {
            realm: parameters.get("realm")?.clone(),
            service: parameters.get("service").cloned(),
        })
    });
    let basic = || {
        challenges
            .iter()
            .any(|(scheme, _)| scheme == "basic")
            .then_some(Challenge::Basic)
    };
    bearer.or_else(basic)
}

/// Reads one `WWW-Authenticate` value, which may hold several challenges: `Basic realm="x", Bearer realm="y",scope="a,b"`.
fn parse_challenges(value: &str) -> Vec<(String, HashMap<String, String>)> {
    let mut found: Vec<(String, HashMap<String, String>)> = Vec::new();
    let mut rest = value.trim_start_matches([' ', ',', '\t']);
    while !rest.is_empty() {
        let end = rest.find([' ', '=', ',', '\t']).unwrap_or(rest.len());
        let word = rest[..end].to_ascii_lowercase();
        let after = rest[end..].trim_start_matches([' ', '\t']);
        if word.is_empty() {
            // Something that is no challenge at all: nothing after it can be trusted to be one.
            break;
        }
        if let Some(argument) = after.strip_prefix('=') {
            let argument = argument.trim_start();
            let (text, left) = match argument.strip_prefix('"') {
                Some(quoted) => unquote(quoted),
                None => {
                    let end = argument.find([',', ' ', '\t']).unwrap_or(argument.len());
                    (argument[..end].to_owned(), &argument[end..])
                }
            };
            if let Some((_, parameters)) = found.last_mut() {
                parameters.entry(word).or_insert(text);
            }
            rest = left;
        } else {
            found.push((word, HashMap::new()));
            rest = after;
        }
        rest = rest.trim_start_matches([' ', ',', '\t']);
    }
    found
}

/// A quoted string's text, and what follows it.
fn unquote(text: &str) -> (String, &str) {
    let mut out = String::new();
    let mut escaped = false;
    for (at, character) in text.char_indices() {
        match character {
            _ if escaped => {
                out.push(character);
                escaped = false;
            }
            '\\' => escaped = true,
            '"' => return (out, &text[at + 1..]),
            _ => out.push(character),
        }
    }
    (out, "")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(values: &[&str]) -> Option<Challenge> {
        let mut headers = reqwest::header::HeaderMap::new();
        for value in values {
            headers.append("www-authenticate", value.parse().unwrap());
        }
        choose(&headers)
    }

    #[test]
    fn bearer_is_chosen_among_challenges_in_any_arrangement() {
        let bearer = Some(Challenge::Bearer {
            realm: "https://a.example/token".into(),
            service: Some("r, \"s\"".into()),
        });
        let text =
            r#"Bearer realm="https://a.example/token",service="r, \"s\"",scope="repository:x:pull,push""#;
        assert_eq!(chosen(&[text]), bearer);
        assert_eq!(chosen(&["Basic realm=\"x\"", text]), bearer);
        assert_eq!(chosen(&[&format!("Basic realm=\"x\", {text}")]), bearer);
        assert_eq!(chosen(&[&format!("{text}, Basic realm=x")]), bearer);
        assert_eq!(chosen(&["basic realm=x"]), Some(Challenge::Basic));
        assert_eq!(chosen(&["Negotiate", "Basic"]), Some(Challenge::Basic));
        assert_eq!(chosen(&["Negotiate"]), None);
        assert_eq!(chosen(&["Bearer scope=x"]), None);
        assert_eq!(chosen(&["=,=,\"", ""]), None);
    }

    #[test]
    fn a_realm_of_strangers_hears_nothing() {
        assert!(is_family("registry-1.docker.io", "auth.docker.io"));
        assert!(is_family("registry.gitlab.example", "gitlab.example"));
        assert!(is_family("registry.git.example.com", "git.example.com"));
        assert!(is_family("h.example", "h.example"));
        assert!(!is_family("h.example", "evil.example"));
        assert!(!is_family("shop.co.uk", "evil.co.uk"));
        assert!(!is_family("registry.docker.io", "evildocker.io"));
    }
}

//! A run's credentials on the path of its requests: lent to one request, taken back from its answer.

use std::sync::Arc;

use http::{HeaderMap, request::Parts};
use serde_json::json;
use stockade_domain::{Action, ActionKind, Outcome};
use stockade_gate::kind;
use stockade_policy::Host;
use stockade_ports::{InternalBody, InternalResponse};

use crate::{
    ask,
    broker::{Leaving, Withheld},
    credentials::{CredentialFault, CredentialUse, Destination, ScannedBody, ScrubbedBody, admissible, refuse_in_name},
    session::{Denial, Session, settle},
};

/// Bytes of a request's body that are searched for placeholders; 1 MiB.
const SEARCHED: u64 = 1 << 20;

/// Puts the credential into a request that one covers, and refuses a placeholder anywhere else. The use is
/// an action of its own, admitted before the secret is opened.
pub(crate) async fn lend(session: &Arc<Session>, leaving: &Leaving<'_>, head: &mut Parts) -> Result<(), Withheld> {
    let Some(credentials) = session.credentials.clone() else {
        return Ok(());
    };
    let to = Destination {
        host: leaving.host,
        port: leaving.port,
        tls: leaving.secure,
    };
    let Some(covered) = credentials.judge(to, head).map_err(|fault| withheld(&fault))? else {
        return Ok(());
    };
    let passed = session
        .passage()
        .pass::<kind::Credential>(action(&covered, leaving, head))
        .await;
    let admitted = passed.map_err(|Denial { rule, reason }| Withheld { rule, reason })?;
    match credentials.inject(covered, head).await {
        Ok(_) => {
            settle(admitted, Outcome::Done, json!({})).await;
            Ok(())
        }
        Err(fault) => {
            let error = fault.to_string();
            settle(admitted, Outcome::Failed { error }, json!({ "fault": fault.code() })).await;
            Err(withheld(&fault))
        }
    }
}

/// Why a name is neither looked up nor connected to, where it holds a placeholder.
pub(crate) fn withheld_name(session: &Session, host: &Host) -> Option<Withheld> {
    session.credentials.as_ref()?;
    let fault = refuse_in_name(host.name()?.as_str()).err()?;
    Some(withheld(&fault))
}

/// A request's body, ended where a placeholder stands in it.
pub(crate) fn watched(session: &Session, body: InternalBody) -> InternalBody {
    match session.credentials {
        Some(_) => InternalBody::new(ScannedBody::new(body, SEARCHED)),
        None => body,
    }
}

/// An answer without what was lent. Once something was, every answer is searched: a server may
/// tell it in the answer to another request.
pub(crate) fn taken_back(session: &Session, response: InternalResponse) -> Result<InternalResponse, Denial> {
    let Some(credentials) = session
        .credentials
        .as_ref()
        .filter(|credentials| credentials.any_used())
    else {
        return Ok(response);
    };
    let (mut head, body) = response.into_parts();
    admissible(&head).map_err(|fault| {
        let Withheld { rule, reason } = withheld(&fault);
        Denial { rule, reason }
    })?;
    let mut scrubber = credentials.scrubber();
    scrubber.head(&mut head);
    let body = InternalBody::new(ScrubbedBody::new(body, scrubber));
    Ok(InternalResponse::from_parts(head, body))
}

/// The same for an answer that has a head and then speaks another protocol.
pub(crate) fn taken_back_from_headers(session: &Session, headers: &mut HeaderMap) {
    if let Some(credentials) = session
        .credentials
        .as_ref()
        .filter(|credentials| credentials.any_used())
    {
        credentials.scrubber().headers(headers);
    }
}

fn withheld(fault: &CredentialFault) -> Withheld {
    Withheld {
        rule: format!("stockade.{}", fault.code()),
        reason: fault.to_string(),
    }
}

/// The use of a secret, as the gate judges it and a receipt counts it.
fn action(covered: &CredentialUse<'_>, leaving: &Leaving<'_>, head: &Parts) -> Action {
    let secret = &covered.binding.secret;
    let (host, port, path) = (leaving.host, leaving.port, ask::clipped(head.uri.path()));
    Action {
        kind: ActionKind::Credential,
        operation: "use".to_owned(),
        target: ask::clipped(&format!("{secret} for {} https://{host}:{port}{path}", head.method)),
        args: json!({
            "secret": secret.as_str(), "host": host.to_string(), "port": port,
            "method": head.method.as_str(), "path": path,
        }),
    }
}

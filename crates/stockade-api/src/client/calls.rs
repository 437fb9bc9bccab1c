//! One method per route.

use bytes::Bytes;
use reqwest::{Method, header::CONTENT_TYPE};
use serde_json::Value;
use stockade_domain::{
    Approval, ApprovalId, ApprovalState, Event, Explanation, RevocationId, RunId, RunState, SecretName, TaskId, TokenId,
};

use super::{Client, ClientError};
use crate::v1::{
    About, AgentItem, Artifact, CancelRun, CreateRevocation, CreateRun, CreateTask, CreateToken, DecideApproval,
    EnvironmentItem, Health, Message, OCTETS, Page, Revocation, Run, RunSummary, Secret, SendMessage, Task,
    TaskCreated, Token, TokenCreated,
};

/// Which runs to list.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ListRuns {
    /// Only runs in one of these states; any when empty.
    pub states: Vec<RunState>,
    /// Where the page before ended.
    pub cursor: Option<String>,
    /// How many at most; the gateway's default when absent.
    pub limit: Option<u32>,
}

fn paging(cursor: Option<&str>, limit: Option<u32>) -> Vec<(&'static str, String)> {
    let cursor = cursor.map(|cursor| ("cursor", cursor.to_owned()));
    let limit = limit.map(|limit| ("limit", limit.to_string()));
    cursor.into_iter().chain(limit).collect()
}

/// Every method gives [`ClientError`] when the gateway cannot be reached or refuses.
impl Client {
    /// `GET /`: who answers, and whether the token works.
    pub async fn about(&self) -> Result<About, ClientError> {
        self.get(&[], &[]).await
    }

    /// `GET /healthz`: the process lives.
    pub async fn health(&self) -> Result<Health, ClientError> {
        self.get(&["healthz"], &[]).await
    }

    /// `GET /readyz`: the store answers too.
    pub async fn ready(&self) -> Result<Health, ClientError> {
        self.get(&["readyz"], &[]).await
    }

    /// `POST /v1/tasks`. The same `key` with the same body creates once.
    pub async fn create_task(&self, task: &CreateTask, key: Option<&str>) -> Result<TaskCreated, ClientError> {
        self.post(&["v1", "tasks"], task, key).await
    }

    /// `GET /v1/tasks`, newest first.
    pub async fn tasks(&self, cursor: Option<&str>, limit: Option<u32>) -> Result<Page<Task>, ClientError> {
        self.get(&["v1", "tasks"], &paging(cursor, limit)).await
    }

    /// `GET /v1/tasks/{id}`.
    pub async fn task(&self, id: TaskId) -> Result<Task, ClientError> {
        self.get(&["v1", "tasks", &id.to_string()], &[]).await
    }

    /// `POST /v1/tasks/{id}/runs`. The same `key` with the same body creates once.
    pub async fn create_run(
        &self,
        task: TaskId,
        run: &CreateRun,
        key: Option<&str>,
    ) -> Result<TaskCreated, ClientError> {
        self.post(&["v1", "tasks", &task.to_string(), "runs"], run, key).await
    }

    /// `GET /v1/runs`, newest first.
    pub async fn runs(&self, list: &ListRuns) -> Result<Page<RunSummary>, ClientError> {
        let mut query = paging(list.cursor.as_deref(), list.limit);
        if !list.states.is_empty() {
            let states: Vec<_> = list.states.iter().map(|state| state.as_str()).collect();
            query.push(("state", states.join(",")));
        }
        self.get(&["v1", "runs"], &query).await
    }

    /// `GET /v1/runs/{id}`.
    pub async fn run(&self, id: RunId) -> Result<Run, ClientError> {
        self.get(&["v1", "runs", &id.to_string()], &[]).await
    }

    /// `POST /v1/runs/{id}/cancel`. Answers at once; the run may still be ending.
    pub async fn cancel_run(&self, id: RunId, reason: Option<String>) -> Result<Run, ClientError> {
        self.post(&["v1", "runs", &id.to_string(), "cancel"], &CancelRun { reason }, None)
            .await
    }

    /// `POST /v1/runs/{id}/messages`.
    pub async fn send_message(&self, id: RunId, message: &SendMessage) -> Result<Message, ClientError> {
        self.post(&["v1", "runs", &id.to_string(), "messages"], message, None)
            .await
    }

    /// `GET /v1/runs/{id}/events` as one page, oldest first. For all of them, also those to
    /// come, use [`Client::events`].
    pub async fn events_page(&self, id: RunId, after: u64, limit: Option<u32>) -> Result<Page<Event>, ClientError> {
        let limit = limit.map(|limit| ("limit", limit.to_string()));
        let query: Vec<_> = [("after", after.to_string())].into_iter().chain(limit).collect();
        self.get(&["v1", "runs", &id.to_string(), "events"], &query).await
    }

    /// `GET /v1/runs/{id}/diff`: the change as a patch that `git apply` takes.
    pub async fn diff(&self, id: RunId) -> Result<Bytes, ClientError> {
        self.bytes(self.request(Method::GET, &["v1", "runs", &id.to_string(), "diff"], &[])?)
            .await
    }

    /// `GET /v1/runs/{id}/receipt`: the signed receipt, byte for byte.
    pub async fn receipt(&self, id: RunId) -> Result<Bytes, ClientError> {
        self.bytes(self.request(Method::GET, &["v1", "runs", &id.to_string(), "receipt"], &[])?)
            .await
    }

    /// `GET /v1/runs/{id}/artifacts`.
    pub async fn artifacts(&self, id: RunId) -> Result<Page<Artifact>, ClientError> {
        self.get(&["v1", "runs", &id.to_string(), "artifacts"], &[]).await
    }

    /// `GET /v1/runs/{id}/artifacts/{name}`.
    pub async fn artifact(&self, id: RunId, name: &str) -> Result<Bytes, ClientError> {
        self.bytes(self.request(Method::GET, &["v1", "runs", &id.to_string(), "artifacts", name], &[])?)
            .await
    }

    /// `GET /v1/approvals`, newest first; of one run or in one state where given.
    pub async fn approvals(
        &self,
        run: Option<RunId>,
        state: Option<ApprovalState>,
        limit: Option<u32>,
    ) -> Result<Page<Approval>, ClientError> {
        let mut query = paging(None, limit);
        query.extend(run.map(|run| ("run", run.to_string())));
        query.extend(state.map(|state| ("state", state.as_str().to_owned())));
        self.get(&["v1", "approvals"], &query).await
    }

    /// `GET /v1/approvals/{id}`.
    pub async fn approval(&self, id: ApprovalId) -> Result<Approval, ClientError> {
        self.get(&["v1", "approvals", &id.to_string()], &[]).await
    }

    /// `POST /v1/approvals/{id}/decision`, in the name of the token.
    pub async fn decide(&self, id: ApprovalId, decision: &DecideApproval) -> Result<Approval, ClientError> {
        self.post(&["v1", "approvals", &id.to_string(), "decision"], decision, None)
            .await
    }

    /// `GET /v1/agents`.
    pub async fn agents(&self) -> Result<Page<AgentItem>, ClientError> {
        self.get(&["v1", "agents"], &[]).await
    }

    /// `GET /v1/environments`.
    pub async fn environments(&self) -> Result<Page<EnvironmentItem>, ClientError> {
        self.get(&["v1", "environments"], &[]).await
    }

    /// `GET /v1/environments/{name}/explain`: what the environment, under the default agent or
    /// that one, says to a URL.
    pub async fn explain(
        &self,
        environment: &str,
        url: &str,
        method: Option<&str>,
        agent: Option<&str>,
    ) -> Result<Explanation, ClientError> {
        let mut query = vec![("url", url.to_owned())];
        query.extend(method.map(|method| ("method", method.to_owned())));
        query.extend(agent.map(|agent| ("agent", agent.to_owned())));
        self.get(&["v1", "environments", environment, "explain"], &query).await
    }

    /// `POST /v1/tokens`. The answer is the only place that ever tells the secret.
    pub async fn create_token(&self, token: &CreateToken) -> Result<TokenCreated, ClientError> {
        self.post(&["v1", "tokens"], token, None).await
    }

    /// `GET /v1/tokens`, newest first, also expired and revoked ones.
    pub async fn tokens(&self) -> Result<Page<Token>, ClientError> {
        self.get(&["v1", "tokens"], &[]).await
    }

    /// `DELETE /v1/tokens/{id}`: revokes it at once.
    pub async fn revoke_token(&self, id: TokenId) -> Result<Token, ClientError> {
        self.json(self.request(Method::DELETE, &["v1", "tokens", &id.to_string()], &[])?)
            .await
    }

    /// `PUT /v1/secrets/{name}`: keeps a value, in the place of an earlier one. No call ever gives it back.
    pub async fn put_secret(&self, name: &SecretName, value: Vec<u8>) -> Result<Secret, ClientError> {
        let request = self.request(Method::PUT, &["v1", "secrets", name.as_str()], &[])?;
        self.json(request.header(CONTENT_TYPE, OCTETS).body(value)).await
    }

    /// `GET /v1/secrets`, by name, without values.
    pub async fn secrets(&self) -> Result<Page<Secret>, ClientError> {
        self.get(&["v1", "secrets"], &[]).await
    }

    /// `DELETE /v1/secrets/{name}`.
    pub async fn remove_secret(&self, name: &SecretName) -> Result<Secret, ClientError> {
        self.json(self.request(Method::DELETE, &["v1", "secrets", name.as_str()], &[])?)
            .await
    }

    /// `POST /v1/environments/{name}/revocations`.
    pub async fn revoke(&self, environment: &str, wanted: &CreateRevocation) -> Result<Revocation, ClientError> {
        self.post(&["v1", "environments", environment, "revocations"], wanted, None)
            .await
    }

    /// `GET /v1/environments/{name}/revocations`, newest first; `all` with the lifted ones.
    pub async fn revocations(&self, environment: &str, all: bool) -> Result<Page<Revocation>, ClientError> {
        let query = [("all", all.to_string())];
        self.get(&["v1", "environments", environment, "revocations"], &query)
            .await
    }

    /// `DELETE /v1/environments/{name}/revocations/{id}`: lifts it.
    pub async fn lift_revocation(&self, environment: &str, id: RevocationId) -> Result<Revocation, ClientError> {
        let path = ["v1", "environments", environment, "revocations", &id.to_string()];
        self.json(self.request(Method::DELETE, &path, &[])?).await
    }

    /// Any `GET` whose answer is JSON, for tools that follow the contract by hand.
    pub async fn get_json(&self, path: &[&str], query: &[(&str, String)]) -> Result<Value, ClientError> {
        self.get(path, query).await
    }
}

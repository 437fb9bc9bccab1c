//! `stockade token`: who may use the API.

use stockade_api::v1;

use crate::{
    cli::Token,
    exit::{Complaint, Exit, Outcome},
    server::Connection,
    settings::Settings,
    terminal::{self, out, say, table},
};

pub(crate) async fn execute(command: Token, settings: Settings, json: bool) -> Outcome {
    let connection = Connection::find(settings).await?;
    let client = connection.client();
    match command {
        Token::Create { name } => {
            let created = client
                .create_token(&v1::CreateToken {
                    name,
                    expires_in_seconds: None,
                })
                .await?;
            if json {
                terminal::json(&created)?;
            } else {
                say(&format!(
                    "token {} for {}; the secret is shown only now:",
                    created.token.id, created.token.name
                ));
                out(created.secret.expose());
            }
        }
        Token::List => {
            let page = client.tokens().await?;
            if json {
                terminal::json(&page.items)?;
            } else {
                let rows = page.items.iter().map(|t| {
                    let state = if t.revoked_at.is_some() { "revoked" } else { "valid" };
                    vec![
                        t.id.to_string(),
                        t.name.clone(),
                        state.to_owned(),
                        t.created_at.to_string(),
                    ]
                });
                table::print(&["ID", "NAME", "STATE", "CREATED"], &rows.collect::<Vec<_>>());
            }
        }
        Token::Revoke { id } => {
            let id = id.parse().map_err(|e| Complaint::usage(format!("{e}")))?;
            let token = client.revoke_token(id).await?;
            say(&format!("revoked {} of {}", token.id, token.name));
        }
    }
    connection.close().await;
    Ok(Exit::Done)
}

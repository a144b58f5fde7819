//! `registry …`: acknowledges that a damaged registry was set aside.

use keywright_client::Client;

use crate::{args::RegistryCommand, failure::Failure, output::Output, terminal};

/// Runs the command.
pub async fn run(
    client: &Client,
    RegistryCommand::Acknowledge { yes }: RegistryCommand,
    output: &mut Output,
) -> Result<(), Failure> {
    let lost = client.lost_registry().await?;
    if let Some(path) = &lost {
        let question = format!(
            "The registry in {path} was damaged. Revocations that only it knew are unknown here, unless you have imported \
             them. Go on without it?"
        );
        terminal::confirm_irreversible(yes, &question, "nothing was acknowledged, as you answered")
            .await?;
        client.acknowledge_lost_registry().await?;
    }
    output.show(&serde_json::json!({ "lost": lost }), || match &lost {
        Some(path) => format!("acknowledged: the registry in {path} is not used any more"),
        None => "nothing is lost".into(),
    })
}

//! A cluster that makes its certificates itself: founded without any, joined with tokens, which count once.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use quorate::builder::Ready;
use quorate::tls::{Authority, CallerRole, Credentials, CredentialsError, Invite, InviteError, Issued, JoinToken};
use quorate::{Cluster, Event, NodeId, Role, StartError};

/// A liveness limit for what must come; a busy machine does not reach it.
const LIMIT: Duration = Duration::from_secs(60);

const MINUTE: Duration = Duration::from_secs(60);

fn describe(node: u64, folder: &Path) -> Result<Ready> {
    let node = Cluster::builder(NodeId::new(node)).data(folder.join(format!("n{node}")));
    Ok(node.listen("127.0.0.1:0".parse()?).without_fencing().timeout(LIMIT))
}

fn of(node: u64, role: Role) -> Invite {
    Invite { node: Some(NodeId::new(node)), role, valid: 10 * MINUTE }
}

async fn active(cluster: &Cluster) -> Result<()> {
    Ok(tokio::time::timeout(LIMIT, cluster.active()).await??)
}

async fn until(what: &str, holds: impl Fn() -> bool) -> Result<()> {
    let waited = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(LIMIT, waited).await.with_context(|| what.to_owned())
}

fn key_of_authority(folder: &Path, node: u64) -> std::path::PathBuf {
    folder.join(format!("n{node}/tls/authority.key"))
}

/// What refused a token.
async fn refused(ready: Ready, token: &JoinToken) -> Result<String> {
    match ready.join_with(token).await {
        Err(StartError::Join { last, .. }) => Ok(last),
        Err(StartError::Config { what, why, .. }) => Ok(format!("{what}: {why}")),
        Err(other) => anyhow::bail!("another error: {other}"),
        Ok(_) => anyhow::bail!("it was let in"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_is_founded_joined_with_tokens_and_resumed_without_a_certificate_made_by_hand() -> Result<()> {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir()?;
    let first = describe(1, folder.path())?.bootstrap().await?;
    active(&first).await?;
    // The next free number, as a text, as an operator would carry it.
    let token = first.invite(Invite { valid: MINUTE, ..Invite::voter() }).await?.to_string();
    let second = describe(2, folder.path())?.join_with(&token.parse()?).await?;
    active(&second).await?;
    // Any node invites, and whom is its choice.
    let token = second.invite(of(7, Role::Learner)).await?;
    assert_eq!((token.node(), token.role()), (NodeId::new(7), Role::Learner));
    let seventh = describe(7, folder.path())?.join_with(&token).await?;
    active(&seventh).await?;
    let role = first.view().cluster.member(NodeId::new(7)).map(|member| member.role);
    assert_eq!(role, Some(Role::Learner));
    // Voters keep the authority, and nobody else; who becomes one gets it, and who is none any more deletes it.
    until("the second voter has the authority", || second.keeps_authority()).await?;
    assert!(!seventh.keeps_authority() && !key_of_authority(folder.path(), 7).exists());
    for key in [key_of_authority(folder.path(), 2), folder.path().join("n7/tls/node.key")] {
        assert_eq!(std::fs::metadata(&key)?.permissions().mode() & 0o777, 0o600, "{}", key.display());
    }
    assert_eq!(std::fs::metadata(folder.path().join("n7/tls"))?.permissions().mode() & 0o777, 0o700);
    let refused = seventh.issue_certificate(CallerRole::Operator("alice".into()), MINUTE);
    assert!(matches!(refused, Err(CredentialsError::NoAuthority)), "{refused:?}");
    second.issue_certificate(CallerRole::Operator("alice".into()), MINUTE)?;
    // The first certificate is short, and the next one is there as soon as it is a member.
    let day = 24 * 60 * MINUTE;
    let long =
        |cluster: &Cluster| cluster.certificate_valid_for().is_some_and(|left| left > 89 * day && left <= 90 * day);
    until("those who joined have a certificate of 90 days", || [&first, &second, &seventh].into_iter().all(long))
        .await?;
    let mut events = second.events();
    first.promote(seventh.identity().node).await?;
    let asked = async {
        loop {
            if let event @ Event::RoleChanged { .. } = events.next().await? {
                return Ok::<_, anyhow::Error>(event);
            }
        }
    };
    let asked = tokio::time::timeout(LIMIT, asked).await??;
    assert_eq!(asked.to_string(), "role of n7 is voter, asked by n1");
    until("a learner that was promoted has the authority", || key_of_authority(folder.path(), 7).exists()).await?;
    first.demote(seventh.identity().node).await?;
    until("who is no voter any more has deleted it", || !key_of_authority(folder.path(), 7).exists()).await?;
    assert!(!seventh.keeps_authority());
    first.promote(seventh.identity().node).await?;
    until("and gets it again with its vote", || seventh.keeps_authority()).await?;
    first.set_role(seventh.identity().node, Role::Witness).await?;
    until("a witness votes, and does not keep it", || !key_of_authority(folder.path(), 7).exists()).await?;
    first.demote(seventh.identity().node).await?;
    // It comes back with what it has.
    seventh.leave().await?;
    let seventh = describe(7, folder.path())?.resume().await?;
    active(&seventh).await?;
    seventh.records().put("from", "n7").await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_counts_once_and_every_other_is_refused_with_the_reason() -> Result<()> {
    let (folder, thief) = (tempfile::tempdir()?, tempfile::tempdir()?);
    let first = describe(1, folder.path())?.bootstrap().await?;
    active(&first).await?;
    let at = |name: &str| folder.path().join(name);

    // Used by the one who had it first. Its own repetition is served.
    let token = first.invite(of(2, Role::Learner)).await?;
    let before = first.view().cluster.revision();
    let stolen = describe(2, thief.path())?.join_with(&token).await?;
    active(&stolen).await?;
    let second = describe(2, folder.path())?.timeout(Duration::from_secs(5));
    let why = refused(second, &token).await?;
    assert!(why.contains("was used by another machine"), "{why}");
    assert!(first.view().cluster.revision() > before, "the use is in the log");
    let member = first.invite(of(2, Role::Learner)).await;
    assert!(matches!(member, Err(InviteError::Member(_))), "{member:?}");

    // A machine that has used one and does not join: its number is given to nobody else.
    let unused = first.invite(of(6, Role::Learner)).await?;
    quorate_transport_grpc::enrollment::enroll(&thief.path().join("n6"), &unused, LIMIT).await?;
    let again = first.invite(of(6, Role::Learner)).await;
    assert!(matches!(again, Err(InviteError::Used { .. })), "{again:?}");
    let free = first.invite(Invite { valid: MINUTE, ..Invite::voter() }).await?;
    assert_eq!(free.node(), NodeId::new(7), "the next number that no machine has a certificate for");

    // An older one of the same node, one whose secret is wrong, and one that is for another node.
    let old = first.invite(of(3, Role::Learner)).await?;
    let new = first.invite(of(3, Role::Learner)).await?;
    let kept = || first.records().get("quorate/invitations/n3").value.map(|record| record.version);
    let before = kept();
    let why = refused(describe(3, folder.path())?, &old).await?;
    assert!(why.contains("not that of the open invitation of n3"), "{why}");
    let why = refused(describe(4, folder.path())?, &new).await?;
    assert!(why.contains("the join token: this node is n4"), "{why}");

    // One of another cluster: the machine itself does not believe who answers.
    let other = describe(1, &at("other"))?.bootstrap().await?;
    let address = first.local_addr().context("it listens")?.to_string();
    let theirs = other.local_addr().context("it listens")?.to_string();
    let foreign = with_address(&other.invite(of(3, Role::Learner)).await?, &theirs, &address)?;
    let why = refused(describe(3, folder.path())?.timeout(Duration::from_secs(2)), &foreign).await?;
    assert!(why.contains("does not belong to the cluster of the token"), "{why}");

    // Expired, by the clock of the leader.
    let short = first.invite(Invite { valid: Duration::from_millis(500), ..of(5, Role::Learner) }).await?;
    let key = "quorate/invitations/n5";
    until("it expires", || first.records().get(key).value.is_none()).await?;
    let why = refused(describe(5, folder.path())?, &short).await?;
    assert!(why.contains("n5 has no open invitation: it has expired"), "{why}");
    assert!(first.view().cluster.members().count() == 2, "nobody else got in");
    assert!(kept() == before && before.is_some(), "and what was refused left no trace");

    // The one that is valid still counts, after all that.
    let third = describe(3, folder.path())?.join_with(&new).await?;
    active(&third).await?;
    let wrong = first.invite(Invite { valid: 100 * MINUTE, ..Invite::voter() }).await;
    assert!(matches!(wrong, Err(InviteError::Validity(_))), "{wrong:?}");
    Ok(())
}

/// The same token, with another address.
fn with_address(token: &JoinToken, from: &str, to: &str) -> Result<JoinToken> {
    let text = token.to_string();
    let (rest, _) = text.rsplit_once('_').context("a checksum")?;
    let changed = rest.replace(from, to);
    Ok(format!("{changed}_{:08x}", crc32c::crc32c(changed.as_bytes())).parse()?)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_token_there_is_no_certificate_and_nothing_is_replaced_by_hand() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let first = describe(1, folder.path())?.bootstrap().await?;
    let address = first.local_addr().context("it listens")?.to_string();
    let error = describe(2, folder.path())?.join([address]).await.err().context("it has no certificate")?.to_string();
    assert!(error.contains("gets them with a token, by `join_with`"), "{error}");
    let authority = quorate::tls::Authority::new("blue")?;
    let issued = authority.issue(CallerRole::Node(NodeId::new(1)), &[], MINUTE)?;
    let replaced = first.replace_credentials(issued.credentials(authority.certificate())?);
    assert!(matches!(replaced, Err(CredentialsError::Managed)), "{replaced:?}");
    Ok(())
}

/// Puts a certificate that is valid for so long in the place of the one that a node has.
fn age(folder: &Path, node: u64, valid: Duration) -> Result<()> {
    let (own, authority) = (folder.join(format!("n{node}/tls")), folder.join("n1/tls"));
    let certificate = std::fs::read_to_string(authority.join("authority.pem"))?;
    let kept = Credentials::read(own.join("authority.pem"), own.join("node.pem"), own.join("node.key"))?;
    let key = std::fs::read_to_string(authority.join("authority.key"))?;
    let authority = Authority::from_pem(&kept.subject().cluster, &certificate, &key)?;
    let issued = authority.issue(CallerRole::Node(NodeId::new(node)), &[], valid)?;
    let chain = format!("{}{certificate}", issued.certificate);
    Issued { certificate: chain, ..issued }.write(own.join("node.pem"), own.join("node.key"))?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn certificates_renew_themselves_by_the_own_authority_and_by_that_of_a_voter() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let first = describe(1, folder.path())?.bootstrap().await?;
    active(&first).await?;
    let token = first.invite(of(2, Role::Learner)).await?;
    let second = describe(2, folder.path())?.join_with(&token).await?;
    active(&second).await?;
    // Its certificate expires while it is off: it comes back with the token that it came with, and with its own key.
    second.leave().await?;
    let own = folder.path().join("n2/tls");
    let key = std::fs::read(own.join("node.key"))?;
    age(folder.path(), 2, Duration::from_secs(1))?;
    std::fs::write(own.join("node.key"), &key)?;
    tokio::time::sleep(Duration::from_secs(2)).await;
    let second = describe(2, folder.path())?.join_with(&token).await?;
    active(&second).await?;
    second.leave().await?;
    first.leave().await?;
    let old = |cluster: &Cluster| cluster.certificate_valid_for().is_none_or(|left| left < 80 * 24 * 60 * MINUTE);
    // That of the voter expires while it is switched off.
    age(folder.path(), 1, Duration::from_secs(1))?;
    age(folder.path(), 2, 60 * MINUTE)?;
    tokio::time::sleep(Duration::from_secs(3)).await;
    let first = describe(1, folder.path())?.resume().await?;
    let address = first.local_addr().context("it listens")?.to_string();
    until("a voter renews by itself", || !old(&first)).await?;
    let second = describe(2, folder.path())?.resume_with([address]).await?;
    until("a learner is given one by a voter", || !old(&second)).await?;
    // What it shows is what is on the disk.
    Credentials::read(own.join("authority.pem"), own.join("node.pem"), own.join("node.key"))?;
    active(&second).await?;
    second.leave().await?;
    first.leave().await?;
    // Without the voter nothing can be renewed.
    let second = describe(2, folder.path())?.timeout(Duration::from_secs(1)).resume().await;
    assert!(matches!(second, Err(StartError::Resume { .. })), "its certificate counts: {:?}", second.err());
    Ok(())
}

//! A person signs in, in one of the pods, into the Secret that they share: all of them go on with it.

use super::*;
use crate::login::{Browser, Login};

impl Bed {
    /// Where a pod learns where the API server is.
    fn environment(&self) -> [(&'static str, String); 2] {
        let address = self.stage.cluster.server().address();
        [
            ("KUBERNETES_SERVICE_HOST", address.ip().to_string()),
            ("KUBERNETES_SERVICE_PORT", address.port().to_string()),
        ]
    }

    /// Pods at a provider whose metadata says where people sign in; the first refresh token is dead.
    async fn dead(&self, count: usize) -> Vec<Daemon> {
        self.idp.revoke_families();
        let named = format!("token_url = \"{}\"", self.idp.token_url());
        let config = self.config().replace(&named, &format!("issuer = \"{}\"", self.idp.url()));
        assert!(!config.contains("token_url"));
        let environment = self.environment();
        let environment = environment.each_ref().map(|(name, value)| (*name, value.as_str()));
        let pods = (0..count).map(|_| Daemon::start_in(&self.stage.home, &config, &environment));
        let pods: Vec<Daemon> = pods.collect();
        for pod in &pods {
            eventually("a person is needed", async || {
                let last = credential(pod).await["last"].clone();
                last["needs_operator"] == true
                    && last["remedy"].as_str().is_some_and(|it| it.starts_with("bearerd login"))
            })
            .await;
        }
        pods
    }

    /// `bearerd login` as `kubectl exec` runs it.
    fn login(&self, arguments: &[&str]) -> Login {
        let environment = self.environment();
        let environment = environment.each_ref().map(|(name, value)| (*name, value.as_str()));
        Login::start_in(&self.stage.home, arguments, &environment)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_login_in_one_pod_reaches_all_that_share_the_secret() {
    let bed = Bed::new();
    let pods = bed.dead(3).await;
    let (fetches, attempts) = (bed.idp.token_requests(), bed.idp.audit_failures());
    let login = bed.login(&["--code"]);
    assert_eq!(Browser::default().open(&login.url()).await.status, 200);
    let (code, out, errors) = login.end();
    assert_eq!(code, 0, "{errors}");
    let told = "The refresh token of c is in kubernetes:shop/orders-tokens: all who share it go on with it.";
    assert!(out.ends_with(&format!("{told}\n")), "{out}");
    for pod in &pods {
        pod.ready().await;
        assert!(!needs_operator(pod).await);
    }
    bed.all_serve(&pods).await;
    assert_eq!(bed.idp.token_requests(), fetches + 1, "the code, and nothing else");
    assert_eq!(bed.idp.audit_failures(), attempts, "the dead one was sent again");
    assert!(bed.holds_newest());
    // From now on its refresh token is the one that they use, each generation once.
    let before = bed.idp.rotations();
    bed.refresh(&pods[0]).await;
    bed.all_serve(&pods).await;
    assert_eq!(bed.idp.rotations(), before + 1);
    assert!(bed.holds_newest());
    // What is not ours is as it was.
    assert_eq!(bed.stage.object()["data"]["other"], secret()["data"]["other"]);
    assert_eq!(bed.idp.violations(), Vec::<String>::new());
    bed.stage.finish();
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_signs_in_for_a_secret_that_is_not_there_or_out_of_reach() {
    let bed = Bed::new();
    let pods = bed.dead(1).await;
    bed.stage.cluster.delete_secret(NAMESPACE, SECRET);
    let asked = bed.idp.requests().len();
    let (code, out, errors) = bed.login(&["--code"]).end();
    assert_eq!((code, out.as_str()), (1, ""), "{errors}");
    let told = "the store is not fit for a login: kubernetes:shop/orders-tokens";
    assert!(
        errors.contains(told) && errors.contains("kubectl --namespace shop create"),
        "{errors}"
    );
    // Outside of the cluster, on somebody's own machine.
    let nowhere = [("KUBERNETES_SERVICE_HOST", ""), ("KUBERNETES_SERVICE_PORT", "")];
    let (code, out, errors) = Login::start_in(&bed.stage.home, &["--code"], &nowhere).end();
    assert_eq!((code, out.as_str()), (1, ""), "{errors}");
    assert!(errors.contains("KUBERNETES_SERVICE_HOST"), "{errors}");
    assert_eq!(bed.idp.requests().len(), asked, "a person was sent to sign in");
    drop(pods);
}

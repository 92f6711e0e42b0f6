//! What a configuration needs: made anew, or taken over from what runs where it is the same.
//!
//! What is made here changes nothing before it is put into effect, and is dropped if a part of it
//! cannot be made.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;

use super::handover::Inheritance;
use super::{Open, Parts, Running, StartError, stored};
use crate::clock::Clock;
use crate::config::reload::Engine;
use crate::config::{self, Config};
use crate::oauth::client::TokenClient;
use crate::outgoing::dial::Kind;
use crate::proxy::Listening;
use crate::proxy::app::{App, Apps};
use crate::proxy::config::{self as proxied, Listener};
use crate::proxy::plan::{Client, Credentials, Plan, Route};
use crate::proxy::replay::Replay;
use crate::proxy::respond::Reason;
use crate::random::ThreadJitter;
use crate::socket::Address;
use crate::store::{self, handoff, metered::MeteredStore};
use crate::telemetry::{ClientMetrics, Label};
use crate::token;
use crate::token::cache::TokenSlot;
use crate::token::ports::{Outcome, Record, TokenEndpoint, TokenStore};
use crate::token::service::{Change, Control, Observer, Orders, TokenService};
use crate::trace::Tracer;
use crate::upstream::Upstream;

type Task = Pin<Box<dyn Future<Output = ()> + Send>>;

/// What was made: the parts, and what has to be done for them to be in effect.
#[derive(Default)]
pub(super) struct Made {
    pub(super) parts: Parts,
    /// What works for new parts in the background.
    pub(super) tasks: Vec<Task>,
    /// What engines that go on are told.
    pub(super) orders: Vec<(Control, Orders)>,
    /// What listeners that stay open do from now on.
    pub(super) plans: Vec<(Arc<Listening>, Arc<Plan>)>,
    /// The sockets that stay open and get another mode.
    pub(super) modes: Vec<Address>,
}

/// Makes what `config` needs to take the place of what is in force in `running`, with what it can
/// use of `inheritance`.
///
/// # Errors
/// [`StartError`] says which part cannot be made and why.
pub(super) fn make(
    running: &Running,
    config: &Config,
    inheritance: &mut Inheritance,
) -> Result<Made, StartError> {
    let mut draft = Draft {
        running,
        config,
        inheritance,
        made: Made::default(),
    };
    draft.instances()?;
    draft.clients()?;
    draft.apps();
    draft.listeners()?;
    Ok(draft.made)
}

/// A configuration's parts in the making.
struct Draft<'a> {
    running: &'a Running,
    config: &'a Config,
    inheritance: &'a mut Inheritance,
    made: Made,
}

impl Draft<'_> {
    /// The instances: each keeps its addresses and what is known of them, unless it changed.
    fn instances(&mut self) -> Result<(), StartError> {
        for (name, instance) in &self.config.instances {
            let old = self.running.parts.instances.get(name);
            if let Some(same) = old.filter(|old| old.instance() == &**instance) {
                let same = Arc::clone(same);
                self.made.parts.instances.insert(Arc::clone(name), same);
                continue;
            }
            let mut upstream =
                Upstream::new(Arc::clone(instance)).map_err(|cause| StartError::Instance {
                    instance: Arc::clone(name),
                    cause,
                })?;
            if let Some(old) = old {
                upstream.take_over(old);
            }
            let upstream = Arc::new(upstream);
            let clock = Arc::clone(&self.running.clock);
            let keeping = Upstream::keep(Arc::downgrade(&upstream), clock);
            self.made.tasks.push(Box::pin(keeping));
            let parts = &mut self.made.parts;
            parts.instances.insert(Arc::clone(name), upstream);
        }
        Ok(())
    }

    /// The clients, each with an engine: the one that it has, as long as its token fits.
    fn clients(&mut self) -> Result<(), StartError> {
        for (name, client) in &self.config.clients {
            let metrics = self.running.metrics.client(name);
            metrics.declare::<Outcome, Replay, Kind>();
            let (slot, engine) = self.engine(client, &metrics)?;
            let upstream = Arc::clone(&self.made.parts.instances[&client.instance]);
            let before = self.running.parts.clients.get(name);
            let is_warmed = before.is_some_and(|before| {
                Arc::ptr_eq(&before.upstream, &upstream) && Arc::ptr_eq(&before.slot, &slot)
            });
            if !is_warmed {
                let warming = Upstream::keep_warm(
                    Arc::downgrade(&upstream),
                    slot.subscribe(),
                    Arc::clone(&self.running.clock),
                );
                self.made.tasks.push(Box::pin(warming));
            }
            let parts = &mut self.made.parts;
            let client = Client {
                name: Arc::clone(name),
                slot,
                wait_for_token: client.wait_for_token,
                upstream,
                own: Credentials::new(
                    client.oauth.client_id.clone(),
                    client.oauth.client_secret.clone(),
                ),
                metrics,
                engine,
            };
            parts.clients.insert(Arc::clone(name), Arc::new(client));
        }
        Ok(())
    }

    fn engine(
        &mut self,
        client: &config::Client,
        metrics: &Arc<ClientMetrics>,
    ) -> Result<(Arc<TokenSlot>, Control), StartError> {
        let running = self.running;
        let before = running.parts.clients.get(&client.name);
        if let Some(before) = before {
            let was = &running.config.clients[&client.name];
            let kept = (Arc::clone(&before.slot), before.engine.clone());
            let store_changed = running.config.store != self.config.store;
            match config::reload::engine(was, client) {
                Engine::Kept(None) if !store_changed => {
                    let store = Arc::clone(&running.parts.stores[&client.name]);
                    self.made
                        .parts
                        .stores
                        .insert(Arc::clone(&client.name), store);
                    return Ok(kept);
                }
                Engine::Kept(change) => {
                    let orders = Orders {
                        config: client.schedule,
                        client_id: client.oauth.client_id.clone(),
                        endpoint: self.endpoint(client)?,
                        store: self.store(client)?,
                        change: change.unwrap_or(Change::Nothing),
                    };
                    self.made.orders.push((kept.1.clone(), orders));
                    return Ok(kept);
                }
                Engine::Replaced => {}
            }
        }
        let (service, slot) = TokenService::new(token::service::Parts {
            client: Arc::clone(&client.name),
            client_id: client.oauth.client_id.clone(),
            config: client.schedule,
            endpoint: self.endpoint(client)?,
            store: self.store(client)?,
            initial: self.initial(client),
            clock: Arc::clone(&running.clock),
            jitter: ThreadJitter,
            observer: Metered {
                client: Arc::clone(&client.name),
                metrics: Arc::clone(metrics),
                tracer: running.tracer.clone(),
                clock: Arc::clone(&running.clock),
            },
        });
        let (engine, orders) = mpsc::unbounded_channel();
        self.made.tasks.push(Box::pin(service.run(orders)));
        Ok((slot, engine))
    }

    fn endpoint(&self, client: &config::Client) -> Result<Arc<dyn TokenEndpoint>, StartError> {
        let clock = Arc::clone(&self.running.clock);
        let addresses = self.made.parts.instances[&client.instance].addresses();
        match TokenClient::new(&client.oauth, Some(addresses), clock) {
            Ok(endpoint) => Ok(Arc::new(endpoint)),
            Err(cause) => Err(StartError::TokenClient {
                client: Arc::clone(&client.name),
                cause,
            }),
        }
    }

    fn store(&mut self, client: &config::Client) -> Result<Arc<dyn TokenStore>, StartError> {
        let instance = self.config.instances[&client.instance].origin();
        let kept = stored(client, &instance);
        let clock = &self.running.clock;
        let store = store::build(&self.config.store, kept, Arc::clone(clock));
        let store = store.map_err(|cause| StartError::Store {
            client: Arc::clone(&client.name),
            cause,
        })?;
        let metrics = self.running.metrics.store(self.config.store.kind());
        let store: Arc<dyn TokenStore> =
            Arc::new(MeteredStore::new(store, metrics, Arc::clone(clock)));
        let stores = &mut self.made.parts.stores;
        stores.insert(Arc::clone(&client.name), Arc::clone(&store));
        Ok(store)
    }

    /// What the process before this one has left of a client.
    fn initial(&mut self, client: &config::Client) -> Option<Record> {
        let sealed = self.inheritance.tokens.remove(&*client.name)?;
        let instance = self.config.instances[&client.instance].origin();
        let now = self.running.clock.wall();
        handoff::open(stored(client, &instance), &sealed, now)
    }

    /// The apps: each goes on counting where it stands, unless its limits changed.
    fn apps(&mut self) {
        let running = self.running;
        let parts = &mut self.made.parts;
        let app = |app: &Arc<proxied::App>| {
            let client = app.client.as_ref().map(|name| &parts.clients[name]);
            let before = running.parts.apps.named(&app.name);
            App::new(
                Arc::clone(app),
                client.map(Arc::clone),
                running.metrics.app(&app.name),
                before.map(|app| &**app),
            )
        };
        let apps = self.config.apps.values().map(app);
        parts.apps = Arc::new(Apps::new(apps));
    }

    /// The listeners: a socket stays open for whoever is to listen on its address.
    fn listeners(&mut self) -> Result<(), StartError> {
        for listener in &self.config.listeners {
            let open = self.listener(listener)?;
            self.made.parts.listeners.push(open);
        }
        Ok(())
    }

    /// A listener's routes, the longest prefix first.
    fn routes(&self, listener: &Listener) -> Vec<Route> {
        let clients = &self.made.parts.clients;
        let route = |route: &proxied::Route| Route {
            prefix: Arc::clone(&route.prefix),
            client: Arc::clone(&clients[&route.client]),
            strip: route.strip,
        };
        let mut routes: Vec<Route> = listener.routes.iter().map(route).collect();
        routes.sort_by_key(|route| std::cmp::Reverse(route.prefix.len()));
        routes
    }

    /// The app that all are who connect to `listener`.
    fn app_of(&self, listener: &Listener) -> Option<Arc<App>> {
        let app = self.made.parts.apps.named(listener.app.as_ref()?)?;
        Some(Arc::clone(app))
    }

    fn listener(&mut self, listener: &Listener) -> Result<Open, StartError> {
        let metrics = self.running.metrics.listener(&listener.name);
        metrics.declare::<Reason>();
        let plan = Arc::new(Plan {
            listener: listener.clone(),
            client: Arc::clone(&self.made.parts.clients[&listener.client]),
            routes: self.routes(listener),
            apps: Arc::clone(&self.made.parts.apps),
            app: self.app_of(listener),
            nobody: self.running.metrics.app(""),
            revoked: Arc::clone(&self.running.revoked),
            policy: Arc::clone(&self.config.policy),
            metrics,
            access_log: self.config.access_log,
            log_user_agent: self.config.log_user_agent,
            tracer: self.running.tracer.clone(),
        });
        // port 0 is another one for each listener
        let mut open = self.running.parts.listeners.iter();
        let open = open.find(|open| {
            let chosen = open.asked.tcp().is_some_and(|asked| asked.port() == 0);
            open.asked.is_at(&listener.address) && (!chosen || open.name == listener.name)
        });
        if let Some(open) = open {
            let plan = (Arc::clone(&open.listening), plan);
            self.made.plans.push(plan);
            if open.asked != listener.address {
                self.made.modes.push(listener.address.clone());
            }
            return Ok(Open {
                name: Arc::clone(&listener.name),
                asked: listener.address.clone(),
                ..open.clone()
            });
        }
        let (socket, is_kept) = self.inheritance.open(
            &listener.name,
            &listener.address,
            &format!("listener.{}.address", listener.name),
        )?;
        let address = socket.address(&listener.address);
        let listening = Arc::new(Listening::new(plan, Arc::clone(&self.running.clock)));
        if is_kept {
            listening.has_heir();
        }
        let held = Arc::downgrade(&socket);
        let serving = Arc::clone(&listening).serve(socket, self.running.connections.clone());
        self.made.tasks.push(Box::pin(serving));
        Ok(Open {
            name: Arc::clone(&listener.name),
            asked: listener.address.clone(),
            address,
            socket: held,
            is_kept,
            listening,
        })
    }
}

/// Counts token requests in the metrics.
#[derive(Debug)]
struct Metered {
    client: Arc<str>,
    metrics: Arc<ClientMetrics>,
    tracer: Option<Arc<Tracer>>,
    clock: Arc<dyn Clock>,
}

impl Observer for Metered {
    fn token_request(&self, duration: Duration, outcome: Result<(), Outcome>) {
        let at = self.clock.wall();
        self.metrics.token_request(outcome, duration, at);
        if let Some(tracer) = &self.tracer {
            let failure = outcome.err().map(Label::label);
            tracer.token_request(&self.client, failure, at, duration);
        }
    }
}

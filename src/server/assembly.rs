//! Builds the parts of a configuration, and reuses running parts that did not change.
//!
//! Building changes nothing that runs. The new parts are applied afterwards, or dropped if one of
//! them cannot be built.

use std::pin::Pin;
use std::sync::Arc;

use tokio::sync::mpsc;

use super::handoff::IncomingHandoff;
use super::{Open, Parts, Running, StartError, key};
use crate::config::reload::Engine;
use crate::config::{self, Config};
use crate::oauth::client::TokenClient;
use crate::outgoing::dial::Kind;
use crate::proxy::Listening;
use crate::proxy::app::{App, Apps};
use crate::proxy::client::{Client, Credentials};
use crate::proxy::config::{self as proxied, Listener};
use crate::proxy::forward::{Forward, Served};
use crate::proxy::listener_state::{ListenerState, Route};
use crate::proxy::replay::Replay;
use crate::proxy::respond::Reason;
use crate::random::ThreadJitter;
use crate::socket::Address;
use crate::store::{self, record};
use crate::telemetry::{ClientMetrics, Label};
use crate::token;
use crate::token::cache::TokenSlot;
use crate::token::ports::{Outcome, Record};
use crate::token::service::{Change, Control, Order, Settings, TokenService};
use crate::upstream::Upstream;

type Task = Pin<Box<dyn Future<Output = ()> + Send>>;

/// The new parts, and the changes that put them into effect.
#[derive(Default)]
pub(super) struct NewParts {
    pub(super) parts: Parts,
    /// The background tasks of new parts.
    pub(super) tasks: Vec<Task>,
    /// The orders for engines that keep running.
    pub(super) orders: Vec<(Control, Order)>,
    /// The new states of listeners that stay open.
    pub(super) states: Vec<(Arc<Listening>, Arc<ListenerState>)>,
    /// The addresses of open sockets whose mode changes.
    pub(super) modes: Vec<Address>,
}

/// Builds the parts by which `config` replaces the configuration in `running`, using the sockets
/// and tokens of `incoming`.
///
/// # Errors
/// [`StartError`] names the part that cannot be built and the cause.
pub(super) fn assemble(
    running: &Running,
    config: &Config,
    incoming: &mut IncomingHandoff,
) -> Result<NewParts, StartError> {
    let mut assembly = Assembly {
        running,
        config,
        incoming,
        new: NewParts::default(),
    };
    assembly.instances()?;
    assembly.clients()?;
    assembly.apps();
    for listener in &config.listeners {
        let open = assembly.listener(listener)?;
        assembly.new.parts.listeners.push(open);
    }
    Ok(assembly.new)
}

/// An assembly in progress.
struct Assembly<'a> {
    running: &'a Running,
    config: &'a Config,
    incoming: &'a mut IncomingHandoff,
    new: NewParts,
}

impl Assembly<'_> {
    /// Builds the instances. An unchanged one is reused; a changed one keeps its known addresses.
    fn instances(&mut self) -> Result<(), StartError> {
        for (name, instance) in &self.config.instances {
            let old = self.running.parts.instances.get(name);
            if let Some(same) = old.filter(|old| old.instance() == &**instance) {
                let same = Arc::clone(same);
                self.new.parts.instances.insert(Arc::clone(name), same);
                continue;
            }
            let mut upstream = Upstream::new(Arc::clone(instance))
                .map_err(StartError::of(format_args!("instance {name}")))?;
            if let Some(old) = old {
                upstream.take_over(old);
            }
            let upstream = Arc::new(upstream);
            let clock = Arc::clone(&self.running.view.clock);
            let keeping = Upstream::keep(Arc::downgrade(&upstream), clock);
            self.new.tasks.push(Box::pin(keeping));
            let parts = &mut self.new.parts;
            parts.instances.insert(Arc::clone(name), upstream);
        }
        Ok(())
    }

    /// Builds the clients. A client keeps its engine as long as its token remains valid for it.
    fn clients(&mut self) -> Result<(), StartError> {
        for (name, client) in &self.config.clients {
            let metrics = self.running.view.metrics.client(name);
            metrics.declare::<Outcome, Replay, Kind>();
            let (slot, engine) = self.engine(client, &metrics)?;
            let upstream = Arc::clone(&self.new.parts.instances[&client.instance]);
            let before = self.running.parts.clients.get(name);
            let is_warmed = before.is_some_and(|before| {
                Arc::ptr_eq(&before.upstream, &upstream) && Arc::ptr_eq(&before.slot, &slot)
            });
            if !is_warmed {
                let warming = Upstream::keep_warm(
                    Arc::downgrade(&upstream),
                    slot.subscribe(),
                    Arc::clone(&self.running.view.clock),
                );
                self.new.tasks.push(Box::pin(warming));
            }
            let parts = &mut self.new.parts;
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
                    let stores = &mut self.new.parts.stores;
                    stores.insert(Arc::clone(&client.name), store);
                    return Ok(kept);
                }
                Engine::Kept(change) => {
                    let change = change.unwrap_or(Change::Nothing);
                    let order = Order::Configure(self.settings(client)?, change);
                    self.new.orders.push((kept.1.clone(), order));
                    return Ok(kept);
                }
                Engine::Replaced => {}
            }
        }
        let (name, metrics) = (Arc::clone(&client.name), Arc::clone(metrics));
        let (tracer, clock) = (running.tracer.clone(), Arc::clone(&running.view.clock));
        let (service, slot) = TokenService::new(token::service::Parts {
            client: Arc::clone(&client.name),
            settings: self.settings(client)?,
            initial: self.initial(client),
            clock: Arc::clone(&running.view.clock),
            jitter: ThreadJitter,
            observer: move |duration, outcome: Result<(), Outcome>| {
                let at = clock.wall();
                metrics.token_request(outcome, duration, at);
                if let Some(tracer) = &tracer {
                    let failure = outcome.err().map(Label::label);
                    tracer.token_request(&name, failure, at, duration);
                }
            },
        });
        let (engine, orders) = mpsc::unbounded_channel();
        self.new.tasks.push(Box::pin(service.run(orders)));
        Ok((slot, engine))
    }

    fn settings(&mut self, client: &config::Client) -> Result<Settings, StartError> {
        let view = &self.running.view;
        let addresses = self.new.parts.instances[&client.instance].addresses();
        let endpoint = TokenClient::new(&client.oauth, Some(addresses), Arc::clone(&view.clock));
        let endpoint = endpoint.map_err(StartError::of(format_args!("client {}", client.name)))?;
        let (store, key) = (&self.config.store, key(self.config, client));
        let store = store::build(store, &client.name, key, Arc::clone(&view.clock));
        let store = store.map_err(StartError::of(format_args!("client {}", client.name)))?;
        let stores = &mut self.new.parts.stores;
        stores.insert(Arc::clone(&client.name), Arc::clone(&store));
        Ok(Settings {
            schedule: client.schedule,
            client_id: client.oauth.client_id.clone(),
            endpoint: Arc::new(endpoint),
            store,
            store_metrics: view.metrics.store(self.config.store.kind()),
        })
    }

    /// The predecessor's token and pool of a client, if it handed them off.
    fn initial(&mut self, client: &config::Client) -> Option<Record> {
        let sealed = self.incoming.tokens.remove(&*client.name)?;
        let now = self.running.view.clock.wall();
        record::open(&key(self.config, client), &sealed, now).record
    }

    /// Builds the apps. An app keeps its counts unless its limits changed.
    fn apps(&mut self) {
        let running = self.running;
        let parts = &mut self.new.parts;
        let app = |app: &Arc<proxied::App>| {
            let client = app.client.as_ref().map(|name| &parts.clients[name]);
            let before = running.parts.apps.named(&app.name);
            App::new(
                Arc::clone(app),
                client.map(Arc::clone),
                running.view.metrics.app(&app.name),
                before.map(|app| &**app),
            )
        };
        let apps = self.config.apps.values().map(app);
        parts.apps = Arc::new(Apps::new(apps));
    }

    /// A listener's routes, longest prefix first.
    fn routes(&self, listener: &Listener) -> Vec<Route> {
        let clients = &self.new.parts.clients;
        let route = |route: &proxied::Route| Route {
            prefix: Arc::clone(&route.prefix),
            client: Arc::clone(&clients[&route.client]),
            strip: route.strip,
        };
        let mut routes: Vec<Route> = listener.routes.iter().map(route).collect();
        routes.sort_by_key(|route| std::cmp::Reverse(route.prefix.len()));
        routes
    }

    /// What `listener` serves as a forward proxy, if it is one.
    fn forward(&self, listener: &Listener) -> Option<Forward> {
        let forward = listener.forward.as_ref()?;
        let served = |name: &Arc<str>| {
            let client = Arc::clone(&self.new.parts.clients[name]);
            let tls = forward.tls.get(&client.upstream.instance().host).cloned();
            Served { client, tls }
        };
        let listeners = self.config.listeners.iter().map(|other| &other.address);
        let own = listeners.chain([&self.config.admin.address]);
        Some(Forward {
            listener: Arc::clone(&listener.name),
            served: forward.clients.iter().map(served).collect(),
            others: forward.others,
            own: own.cloned().collect(),
        })
    }

    /// Builds a listener. A socket stays open if a listener of the new configuration uses its
    /// address.
    fn listener(&mut self, listener: &Listener) -> Result<Open, StartError> {
        let metrics = self.running.view.metrics.listener(&listener.name);
        metrics.declare::<Reason>();
        let app = listener.app.as_ref();
        let app = app.and_then(|app| self.new.parts.apps.named(app));
        let state = Arc::new(ListenerState {
            listener: listener.clone(),
            client: Arc::clone(&self.new.parts.clients[&listener.client]),
            routes: self.routes(listener),
            forward: self.forward(listener),
            apps: Arc::clone(&self.new.parts.apps),
            app: app.map(Arc::clone),
            nobody: self.running.view.metrics.app(""),
            revoked: Arc::clone(&self.running.revoked),
            policy: Arc::clone(&self.config.policy),
            metrics,
            access_log: self.config.access_log,
            log_user_agent: self.config.log_user_agent,
            tracer: self.running.tracer.clone(),
        });
        // each listener with port 0 has a port of its own
        let mut open = self.running.parts.listeners.iter();
        let open = open.find(|Open { socket, .. }| {
            let chosen = socket.asked.tcp().is_some_and(|asked| asked.port() == 0);
            socket.asked.is_at(&listener.address) && (!chosen || socket.name == listener.name)
        });
        if let Some(open) = open {
            let state = (Arc::clone(&open.listening), state);
            self.new.states.push(state);
            if open.socket.asked != listener.address {
                self.new.modes.push(listener.address.clone());
            }
            let mut open = open.clone();
            open.socket.name = Arc::clone(&listener.name);
            open.socket.asked = listener.address.clone();
            return Ok(open);
        }
        let what = format!("listener.{}.address", listener.name);
        let (name, address) = (&listener.name, &listener.address);
        let (socket, bound) = self.incoming.open(name, address, &what)?;
        let listening = Arc::new(Listening::new(state, Arc::clone(&self.running.view.clock)));
        if bound.is_kept {
            listening.has_successor();
        }
        let serving = Arc::clone(&listening).serve(socket, self.running.connections.clone());
        self.new.tasks.push(Box::pin(serving));
        Ok(Open {
            socket: bound,
            listening,
        })
    }
}

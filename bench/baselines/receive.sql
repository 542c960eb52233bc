select flohsync.receive_webhook('hooks', m.body, m.headers)
  from bench.message m where m.n = (select nextval('bench.turn'));

/*
 * control.c
 *	  The control URLs, /_control/...: what tests tell the server, and ask it.
 *	  README.md lists them.
 */
#include "auth.h"
#include "faults.h"
#include "journal.h"
#include "limit.h"
#include "page.h"

#include <stdio.h>
#include <stdlib.h>

const char *control_default_records = "user=1000,group=50";

/* Fresh records: "user=1000,group=50".  Types that aren't named stay as they are. */
bool
control_records(const char *list, char *error, size_t size)
{
	char			   name[64];
	unsigned long long count;
	int				   used;

	while (*list)
	{
		if (sscanf(list, "%63[^=,]=%llu%n", name, &count, &used) != 2 ||
			(list[used] != ',' && list[used] != '\0') || data_make(name, (size_t) count) == NULL)
		{
			snprintf(error, size, "records must look like user=1000,group=50, not: %s", list);
			return false;
		}
		list += used + (list[used] == ',');
	}
	return true;
}

/* All as it was at the start. */
bool
control_reset(char *error, size_t size)
{
	fault_heal_all();
	wire_release();
	clock_skew = clock_fixed = 0;
	page_by_position = page_reports_deleted = false;
	commands_validator = VALIDATOR_NONE;
	cursor_oldest = 0;
	cursor_expired_status = MHD_HTTP_GONE;
	commands_missing = MHD_HTTP_NOT_FOUND;
	free(commands_token);
	commands_token = NULL;
	free(rest_other_origin);
	rest_other_origin = NULL;
	auth_set(NULL);
	limit_set(NULL);
	journal_clear();
	data_drop_all();
	return control_records(control_default_records, error, size);
}

static enum MHD_Result
refuse(call *c, const char *why)
{
	c->answer.status = MHD_HTTP_BAD_REQUEST;
	c->answer.body.n = 0;
	buf_lit(&c->answer.body, "{\"ok\":false,\"error\":");
	buf_json_str(&c->answer.body, why);
	buf_lit(&c->answer.body, "}\n");
	return answer_send(c);
}

static enum MHD_Result
fine(call *c)
{
	answer_json(&c->answer, MHD_HTTP_OK, "{\"ok\":true}\n");
	return answer_send(c);
}

/* The type that a control request names; without one, "user". */
static data_type *
arg_type(call *c)
{
	const char *name = call_arg(c, "type");

	return data_find(name ? name : "user");
}

static enum MHD_Result
do_reset(call *c)
{
	char error[256];

	return control_reset(error, sizeof(error)) ? fine(c) : refuse(c, error);
}

static enum MHD_Result
do_state(call *c)
{
	buf *b = &c->answer.body;

	c->answer.status = MHD_HTTP_OK;
	buf_lit(b, "{\"ok\":true,\"clock\":\"");
	put_time(b, clock_now());
	buf_printf(b, "\",\"epoch\":%lld,\"types\":{", (long long) cursor_epoch);
	for (int i = 0; i < data_types_used(); i++)
	{
		data_type *t = data_type_at(i);

		buf_printf(b, "%s\"%s\":{\"records\":%zu,\"deleted\":%zu,\"made\":%zu}", i ? "," : "",
				   t->name, t->count - t->deleted, t->deleted, t->count);
	}
	buf_lit(b, "}}\n");
	return answer_send(c);
}

static enum MHD_Result
add_count(void *closure, enum MHD_ValueKind kind, const char *name, const char *value)
{
	buf *b = closure;

	(void) kind;
	buf_printf(b, "%s%s=%s", b->n ? "," : "", name, value ? value : "");
	return MHD_YES;
}

/* Every parameter is a type: ?user=1000&group=50 */
static enum MHD_Result
do_records(call *c)
{
	buf	 list = {0};
	char error[256] = "";

	MHD_get_connection_values(c->connection, MHD_GET_ARGUMENT_KIND, add_count, &list);
	buf_char(&list, '\0');
	control_records(list.p, error, sizeof(error));
	buf_free(&list);
	return error[0] == '\0' ? do_state(c) : refuse(c, error);
}

static enum MHD_Result
select_and(call *c, change_what what)
{
	data_type  *t = arg_type(c);
	const char *fraction = call_arg(c, "fraction");
	selection	s = {.ids = call_arg(c, "ids"),
					 .from = (size_t) call_arg_int(c, "from", 0),
					 .to = (size_t) call_arg_int(c, "to", 0),
					 .fraction = fraction ? strtod(fraction, NULL) : -1,
					 .number = call_arg_int(c, "count", -1),
					 .seed = (uint64_t) call_arg_int(c, "seed", 0)};
	buf			ids = {0};
	size_t		n;

	if (t == NULL)
		return refuse(c, "unknown type");
	if (s.ids == NULL && fraction == NULL && s.from == 0 && s.to == 0 && s.number < 0 &&
		call_arg(c, "all") == NULL)
		return refuse(c, "say which records: ids, from and to, fraction, count or all=1");
	n = data_change(t, &s, what, &ids, (size_t) call_arg_int(c, "list", 100));
	c->answer.status = MHD_HTTP_OK;
	buf_printf(&c->answer.body, "{\"ok\":true,\"count\":%zu,\"ids\":[", n);
	buf_put(&c->answer.body, ids.p ? ids.p : "", ids.n);
	buf_lit(&c->answer.body, "]}\n");
	buf_free(&ids);
	return answer_send(c);
}

static enum MHD_Result
do_change(call *c)
{
	static const char *const names[] = {"attributes", "name", "email", "groups"};
	const char				*what = call_arg(c, "what");

	for (int i = 0; i < 4; i++)
		if (what == NULL || strcmp(what, names[i]) == 0)
			return select_and(c, CHANGE_ATTRIBUTES + (change_what) i);
	return refuse(c, "what is one of attributes, name, email, groups");
}

static enum MHD_Result
do_delete(call *c)
{
	return select_and(c, CHANGE_DELETE);
}

static enum MHD_Result
do_restore(call *c)
{
	return select_and(c, CHANGE_RESTORE);
}

static enum MHD_Result
do_add(call *c)
{
	data_type *t = arg_type(c);
	long long  n = call_arg_int(c, "count", 1);
	size_t	   first;

	if (t == NULL || n < 0)
		return refuse(c, "unknown type, or no count");
	first = t->count + 1;
	data_add(t, (size_t) n);
	answer_json(&c->answer, MHD_HTTP_OK, "{\"ok\":true,\"count\":%lld,\"from\":%zu,\"to\":%zu}\n",
				n, first, t->count);
	return answer_send(c);
}

static enum MHD_Result
do_set(call *c)
{
	data_type  *t = arg_type(c);
	const char *id = call_arg(c, "id");

	if (t == NULL || id == NULL || !data_set(t, id, c->body.p, c->body.n))
		return refuse(c, "no such record");
	return fine(c);
}

/* The records that are there, one a line: what a complete full pass must end with. */
static enum MHD_Result
do_dump(call *c)
{
	data_type  *t = arg_type(c);
	bool		ids = call_arg_int(c, "ids", 0) != 0;
	const char *shape = call_arg(c, "shape");
	bool		scim = shape != NULL && strcmp(shape, "scim") == 0;
	buf		   *b = &c->answer.body;

	if (t == NULL)
		return refuse(c, "unknown type");
	c->answer.status = MHD_HTTP_OK;
	c->answer.content_type = must_strdup("application/x-ndjson");
	for (size_t i = 1; i <= t->count; i++)
	{
		if (t->records[i - 1].deleted)
			continue;
		if (ids)
			render_id(b, t, i);
		else if (scim)
			render_scim(b, t, i, NULL);
		else
			render_record(b, t, i, NULL);
		buf_char(b, '\n');
	}
	return answer_send(c);
}

/* skew=seconds, at=time to stand still at ("" to go on), step=seconds. */
static enum MHD_Result
do_clock(call *c)
{
	const char *skew = call_arg(c, "skew");
	const char *at = call_arg(c, "at");
	const char *step = call_arg(c, "step");

	if (at != NULL && *at == '\0')
		clock_fixed = 0;
	else if (at != NULL && !parse_time(at, &clock_fixed))
		return refuse(c, "at is no time");
	if (skew != NULL)
		clock_skew = (int64_t) (strtod(skew, NULL) * 1e6);
	if (step != NULL)
		clock_skew += (int64_t) (strtod(step, NULL) * 1e6);
	return do_state(c);
}

static enum MHD_Result
do_options(call *c)
{
	const char *paging = call_arg(c, "paging");
	const char *token = call_arg(c, "token");
	const char *origin = call_arg(c, "origin");
	const char *validator = call_arg(c, "validator");

	page_reports_deleted = call_arg_int(c, "deleted", page_reports_deleted) != 0;
	if (paging != NULL)
		page_by_position = strcmp(paging, "position") == 0;
	commands_missing = (unsigned) call_arg_int(c, "missing", commands_missing);
	commands_page_cache = call_arg_int(c, "page_cache", commands_page_cache) != 0;
	if (validator != NULL)
		commands_validator = strcmp(validator, "etag") == 0 ? VALIDATOR_STRONG :
			strcmp(validator, "weak") == 0					? VALIDATOR_WEAK :
			strcmp(validator, "modified") == 0				? VALIDATOR_MODIFIED :
															  VALIDATOR_NONE;
	if (token != NULL)
	{
		free(commands_token);
		commands_token = *token ? must_strdup(token) : NULL;
	}
	if (origin != NULL)
	{
		free(rest_other_origin);
		rest_other_origin = *origin ? must_strdup(origin) : NULL;
	}
	return fine(c);
}

static enum MHD_Result
do_auth(call *c)
{
	if (call_arg(c, "revoke") != NULL)
		tokens_revoke();
	else
		auth_set(c);
	return fine(c);
}

static enum MHD_Result
do_limit(call *c)
{
	limit_set(c);
	return fine(c);
}

static enum MHD_Result
do_expire(call *c)
{
	cursor_oldest = ++cursor_epoch;
	cursor_expired_status = (int) call_arg_int(c, "code", MHD_HTTP_GONE);
	return fine(c);
}

static enum MHD_Result
do_fault(call *c)
{
	char   error[256];
	fault *f = fault_add(c, error, sizeof(error));

	if (f == NULL)
		return refuse(c, error);
	answer_json(&c->answer, MHD_HTTP_OK, "{\"ok\":true,\"id\":%d}\n", f->id);
	return answer_send(c);
}

static enum MHD_Result
do_heal(call *c)
{
	if (call_arg(c, "id") == NULL)
		fault_heal_all();
	else if (!fault_heal((int) call_arg_int(c, "id", 0)))
		return refuse(c, "no such fault");
	return fine(c);
}

static enum MHD_Result
do_release(call *c)
{
	wire_release();
	return fine(c);
}

static enum MHD_Result
do_faults(call *c)
{
	c->answer.status = MHD_HTTP_OK;
	fault_list(&c->answer.body);
	return answer_send(c);
}

static enum MHD_Result
do_kinds(call *c)
{
	c->answer.status = MHD_HTTP_OK;
	fault_kinds(&c->answer.body);
	return answer_send(c);
}

static enum MHD_Result
do_log(call *c)
{
	buf *b = &c->answer.body;

	c->answer.status = MHD_HTTP_OK;
	buf_lit(b, "{\"ok\":true,");
	journal_counts(b);
	buf_char(b, ',');
	journal_put(b, (long) call_arg_int(c, "last", 20));
	buf_lit(b, "}\n");
	if (call_arg_int(c, "clear", 0))
		journal_clear();
	return answer_send(c);
}

/* A waiting test: the thread below waits, and leaves the answer in the call. */
typedef struct wait
{
	call		*call;
	journal_goal goal;
	long		 timeout_ms;
} wait;

static bool
wait_work(void *closure)
{
	wait *w = closure;
	buf	 *b = &w->call->answer.body;
	bool  ok = journal_wait(&w->goal, w->timeout_ms);

	w->call->answer.status = ok ? MHD_HTTP_OK : MHD_HTTP_REQUEST_TIMEOUT;
	buf_str(b, ok ? "{\"ok\":true," : "{\"ok\":false,\"error\":\"timeout\",");
	journal_counts(b);
	buf_lit(b, "}\n");
	free(w);
	return true;
}

static enum MHD_Result
do_wait(call *c)
{
	wait	   *w = must_alloc(sizeof(wait));
	const char *type = call_arg(c, "type");

	w->call = c;
	w->goal.requests = (long) call_arg_int(c, "requests", 0);
	w->goal.hanging = (long) call_arg_int(c, "hanging", 0);
	w->goal.fired = (long) call_arg_int(c, "fired", 0);
	w->goal.open = (long) call_arg_int(c, "open", 0);
	if (type != NULL)
		strncpy(w->goal.type, type, sizeof(w->goal.type) - 1);
	w->timeout_ms = (long) call_arg_int(c, "timeout_ms", 30000);
	return wire_hold_for(c, wait_work, w);
}

static const struct
{
	const char *name;
	enum MHD_Result (*run)(call *c);
} actions[] = {{"reset", do_reset},		{"records", do_records}, {"change", do_change},
			   {"delete", do_delete},	{"restore", do_restore}, {"add", do_add},
			   {"set", do_set},			{"state", do_state},	 {"dump", do_dump},
			   {"clock", do_clock},		{"auth", do_auth},		 {"limit", do_limit},
			   {"options", do_options}, {"expire", do_expire},	 {"fault", do_fault},
			   {"heal", do_heal},		{"release", do_release}, {"faults", do_faults},
			   {"kinds", do_kinds},		{"log", do_log},		 {"wait", do_wait}};

enum MHD_Result
control_run(call *c)
{
	const char *name = strchr(c->url + 1, '/');

	for (size_t i = 0; name != NULL && i < sizeof(actions) / sizeof(actions[0]); i++)
		if (strcmp(name + 1, actions[i].name) == 0)
			return actions[i].run(c);
	answer_error(&c->answer, MHD_HTTP_NOT_FOUND, "no such control URL");
	return answer_send(c);
}

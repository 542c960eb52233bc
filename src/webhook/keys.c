/*
 * keys.c
 *	  Which event has named which key of a record last.
 *
 * Events tell only what has changed, and may come in another order than they
 * happened in.  So a record that events have made what it is remembers, for
 * each key that they named, when the last of these happened (the column
 * event_keys): an older event that comes late still counts for the keys that
 * no later one has named.
 *
 *	{"": since, "displayName": t, "email": t, "attributes": t, ".department": t}
 *
 * Times are microseconds since 2000.  "attributes" is there when all of them
 * were set at once (to null); a single one has a dot before it.  About what
 * happened before "since" nothing is known: the record was observed as a whole
 * later than that, or there were more keys than are kept.
 */
#include "postgres.h"

#include "base/compat.h"

#include "utils/builtins.h"
#include "utils/numeric.h"
#include "utils/timestamp.h"

#include "base/bytes.h"
#include "webhook/keys.h"

static const char *const plain_keys[] = {"displayName", "email"};

typedef struct NamedKey
{
	Slice		name;
	TimestampTz at;
} NamedKey;

typedef struct NamedKeys
{
	int		 n;
	NamedKey keys[WEBHOOK_MAX_KEYS + 1];
} NamedKeys;

static JsonbValue *
keys_member(Jsonb *object, Slice name)
{
	return getKeyJsonValueFromContainer(&object->root, name.data, name.len, NULL);
}

static Slice
keys_slice(const char *text)
{
	return (Slice){(char *) text, (int) strlen(text)};
}

static Slice
keys_of_attribute(Slice attribute)
{
	char *name = palloc(attribute.len + 1);

	name[0] = '.';
	memcpy(name + 1, attribute.data, attribute.len);
	return (Slice){name, attribute.len + 1};
}

/* When a key was last named; DT_NOBEGIN: never. */
static TimestampTz
keys_at(Jsonb *keys, Slice name)
{
	JsonbValue *value = keys_member(keys, name);

	if (value == NULL)
		return DT_NOBEGIN;
	if (value->type != jbvNumeric)
		return DT_NOEND;
	return DatumGetInt64(DirectFunctionCall1(numeric_int8, NumericGetDatum(value->val.numeric)));
}

/* False: there are too many. */
static bool
keys_put(NamedKeys *named, Slice name, TimestampTz at)
{
	for (int i = 0; i < named->n; i++)
	{
		NamedKey *key = &named->keys[i];

		if (key->name.len == name.len && memcmp(key->name.data, name.data, name.len) == 0)
		{
			key->at = Max(key->at, at);
			return true;
		}
	}
	if (named->n == lengthof(named->keys))
		return false;
	named->keys[named->n++] = (NamedKey){name, at};
	return true;
}

static void
keys_push_name(JsonbParseState **state, Slice name)
{
	JsonbValue key = {.type = jbvString};

	key.val.string.val = (char *) name.data;
	key.val.string.len = name.len;
	pushJsonbValue(state, WJB_KEY, &key);
}

static Jsonb *
keys_write(const NamedKeys *named)
{
	JsonbParseState *state = NULL;

	pushJsonbValue(&state, WJB_BEGIN_OBJECT, NULL);
	for (int i = 0; i < named->n; i++)
	{
		JsonbValue value = {.type = jbvNumeric};

		value.val.numeric = int64_to_numeric(named->keys[i].at);
		keys_push_name(&state, named->keys[i].name);
		pushJsonbValue(&state, WJB_VALUE, &value);
	}
	return JsonbValueToJsonb(pushJsonbValue(&state, WJB_END_OBJECT, NULL));
}

/* Walks the members of an object, one a call. */
static bool
keys_next(JsonbIterator **it, Slice *name, JsonbValue *value)
{
	JsonbValue		   key;
	JsonbIteratorToken token;

	while ((token = JsonbIteratorNext(it, &key, true)) != WJB_DONE)
		if (token == WJB_KEY)
		{
			*name = (Slice){key.val.string.val, key.val.string.len};
			(void) JsonbIteratorNext(it, value, true);
			return true;
		}
	return false;
}

static bool
keys_is_object(const JsonbValue *value)
{
	return value->type == jbvBinary && JsonContainerIsObject(value->val.binary.data);
}

/*
 * webhook_keys_note returns the keys with those that data names, by an event
 * that happened at a time.  Where there were none (NULL), "since" is from when
 * on they count; DT_NOBEGIN: ever.  NULL: there are too many.
 */
Jsonb *
webhook_keys_note(Jsonb *keys, TimestampTz since, Jsonb *data, TimestampTz at)
{
	NamedKeys	   named = {0};
	JsonbValue	  *attributes = keys_member(data, keys_slice("attributes"));
	bool		   all = attributes != NULL && !keys_is_object(attributes);
	JsonbIterator *it;
	JsonbValue	   value;
	Slice		   name;

	if (keys != NULL)
	{
		it = JsonbIteratorInit(&keys->root);
		while (keys_next(&it, &name, &value))
		{
			TimestampTz was = keys_at(keys, name);

			if (all && was <= at && name.len > 0 && name.data[0] == '.')
				continue;
			if (!keys_put(&named, name, was))
				return NULL;
		}
	}
	else if (since != DT_NOBEGIN)
		(void) keys_put(&named, keys_slice(""), since);
	for (size_t i = 0; i < lengthof(plain_keys); i++)
		if (keys_member(data, keys_slice(plain_keys[i])) != NULL &&
			!keys_put(&named, keys_slice(plain_keys[i]), at))
			return NULL;
	if (all)
		return keys_put(&named, keys_slice("attributes"), at) ? keys_write(&named) : NULL;
	if (attributes != NULL)
	{
		it = JsonbIteratorInit(attributes->val.binary.data);
		while (keys_next(&it, &name, &value))
			if (!keys_put(&named, keys_of_attribute(name), at))
				return NULL;
	}
	return keys_write(&named);
}

/*
 * webhook_keys_late returns what of data still counts, though later events were
 * there first; NULL: nothing does.  Where it sets all attributes at once, kept
 * are those that later events have set.
 */
Jsonb *
webhook_keys_late(Jsonb *keys, Jsonb *data, TimestampTz at, WebhookKept *kept)
{
	JsonbValue		*attributes = keys_member(data, keys_slice("attributes"));
	TimestampTz		 all_at = keys_at(keys, keys_slice("attributes"));
	JsonbParseState *state = NULL;
	JsonbIterator	*it;
	JsonbValue		 value;
	Slice			 name;
	int				 n = 0;

	kept->n = 0;
	if (at < keys_at(keys, keys_slice("")))
		return NULL;
	pushJsonbValue(&state, WJB_BEGIN_OBJECT, NULL);
	for (size_t i = 0; i < lengthof(plain_keys); i++)
	{
		JsonbValue *member = keys_member(data, keys_slice(plain_keys[i]));

		if (member == NULL || keys_at(keys, keys_slice(plain_keys[i])) > at)
			continue;
		keys_push_name(&state, keys_slice(plain_keys[i]));
		pushJsonbValue(&state, WJB_VALUE, member);
		n++;
	}
	if (attributes != NULL && all_at <= at && !keys_is_object(attributes))
	{
		keys_push_name(&state, keys_slice("attributes"));
		pushJsonbValue(&state, WJB_VALUE, attributes);
		n++;
		it = JsonbIteratorInit(&keys->root);
		while (keys_next(&it, &name, &value))
			if (name.len > 0 && name.data[0] == '.' && keys_at(keys, name) > at &&
				kept->n < WEBHOOK_MAX_KEYS)
				kept->names[kept->n++] = (Slice){name.data + 1, name.len - 1};
	}
	else if (attributes != NULL && all_at <= at)
	{
		keys_push_name(&state, keys_slice("attributes"));
		pushJsonbValue(&state, WJB_BEGIN_OBJECT, NULL);
		it = JsonbIteratorInit(attributes->val.binary.data);
		while (keys_next(&it, &name, &value))
		{
			if (keys_at(keys, keys_of_attribute(name)) > at)
				continue;
			keys_push_name(&state, name);
			pushJsonbValue(&state, WJB_VALUE, &value);
			n++;
		}
		pushJsonbValue(&state, WJB_END_OBJECT, NULL);
	}
	{
		JsonbValue *left = pushJsonbValue(&state, WJB_END_OBJECT, NULL);

		return n > 0 ? JsonbValueToJsonb(left) : NULL;
	}
}

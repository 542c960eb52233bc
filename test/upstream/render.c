/*
 * render.c
 *	  The JSON of a record: about 400 bytes that follow from the seed, the
 *	  type, the record's number and its versions, so that the same command
 *	  line always gives the same directory.
 *
 * This is the server's fast path: a page is rendered when it is asked for.
 */
#include "data.h"
#include "render.h"

/* splitmix64's finisher: a good hash of 64 bits. */
uint64_t
mix(uint64_t x)
{
	x += UINT64_C(0x9e3779b97f4a7c15);
	x = (x ^ (x >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
	x = (x ^ (x >> 27)) * UINT64_C(0x94d049bb133111eb);
	return x ^ (x >> 31);
}

static const char *const first_names[] = {"Ada",	"Alan",		"Barbara", "Claude",
										  "Donald", "Edsger",	"Frances", "Grace",
										  "Hedy",	"Ivan",		"Jean",	   "Ken",
										  "Leslie", "Margaret", "Niklaus", "Radia"};
static const char *const last_names[] = {"Lovelace", "Turing",	   "Liskov", "Shannon",
										 "Knuth",	 "Dijkstra",   "Allen",	 "Hopper",
										 "Lamarr",	 "Sutherland", "Bartik", "Thompson",
										 "Lamport",	 "Hamilton",   "Wirth",	 "Perlman"};
/* Every tenth record; the last two are written with JSON escapes, one of them a surrogate pair. */
static const char *const foreign_names[] = {
	"Zo\xc3\xab M\xc3\xbcller",
	("\xc5\x81ukasz \xc3\x98"
	 "deg\xc3\xa5rd"),
	"\xe5\xb1\xb1\xe7\x94\xb0 \xe5\xa4\xaa\xe9\x83\x8e",
	"\xd0\x90\xd0\xbd\xd0\xbd\xd0\xb0 \xd0\x98\xd0\xb2\xd0\xb0\xd0\xbd\xd0\xbe\xd0\xb2\xd0\xb0",
	"\xd9\x84\xd9\x8a\xd9\x84\xd9\x89 \xd8\xad\xd8\xb3\xd9\x86",
	"Nguy\xe1\xbb\x85n V\xc4\x83n An",
	"Ren\\u00e9e O'Neill",
	"Kim \\ud83d\\ude80 Rocket"};
static const char *const departments[] = {"Engineering", "Finance",	   "Human Resources", "Legal",
										  "Marketing",	 "Operations", "Research",		  "Sales"};
/* clang-format off */
static const char *const cities[][2] = {
	{"Basel", "4051"}, {"Berlin", "10115"}, {"K\xc3\xb8" "benhavn", "1050"}, {"Lisboa", "1100"},
	{"London", "EC1A"}, {"Paris", "75001"}, {"Wien", "1010"}, {"Z\xc3\xbcrich", "8001"}
};
/* clang-format on */
static const char *const domains[] = {"acme.com", "example.org", "corp.example"};
static const char *const locales[] = {"de-CH", "en-GB", "fr-FR", "pt-PT"};

static void
put_hex(buf *b, uint64_t v, int digits)
{
	char text[16];

	for (int i = digits - 1; i >= 0; i--, v >>= 4)
		text[i] = "0123456789abcdef"[v & 15];
	buf_put(b, text, (size_t) digits);
}

/* "user-0000017", or a uuid made from the same. */
void
render_id(buf *b, const data_type *t, size_t number)
{
	if (data_random_ids)
	{
		uint64_t high = mix(t->seed ^ number);
		uint64_t low = mix(high ^ 0x1d);

		put_hex(b, high >> 32, 8);
		buf_char(b, '-');
		put_hex(b, high >> 16, 4);
		buf_lit(b, "-4");
		put_hex(b, high, 3);
		buf_char(b, '-');
		put_hex(b, 8 + (low >> 62), 1);
		put_hex(b, low >> 48, 3);
		buf_char(b, '-');
		put_hex(b, low, 12);
		return;
	}
	buf_str(b, t->name);
	buf_char(b, '-');
	buf_pad_int(b, number, 7);
}

/* What the rest of a record follows from. */
uint64_t
render_hash(const data_type *t, size_t number)
{
	return mix(t->seed ^ (number << 1));
}

const char *
render_department(const data_type *t, size_t number)
{
	return departments[(mix(render_hash(t, number) ^ t->records[number - 1].version) >> 8) & 7];
}

const char *
render_locale(const data_type *t, size_t number)
{
	return locales[(render_hash(t, number) >> 32) & 3];
}

/* The name as JSON text: "Ada Lovelace 17", in two parts for SCIM. */
void
render_name(buf *b, const data_type *t, size_t number, name_part part)
{
	const record *r = &t->records[number - 1];
	uint64_t	  h = render_hash(t, number);

	if (part == NAME_GIVEN && number % 10 != 0)
	{
		buf_str(b, first_names[h & 15]);
		return;
	}
	if (part == NAME_FAMILY && number % 10 != 0)
	{
		buf_str(b, last_names[(h >> 4) & 15]);
		return;
	}
	if (strcmp(t->name, "user") != 0)
	{
		buf_char(b, (char) (t->name[0] >= 'a' && t->name[0] <= 'z' ? t->name[0] - 32 : t->name[0]));
		buf_str(b, t->name + 1);
		buf_char(b, ' ');
	}
	if (number % 10 == 0)
		buf_str(b, foreign_names[(number / 10) % 8]);
	else
	{
		buf_str(b, first_names[h & 15]);
		buf_char(b, ' ');
		buf_str(b, last_names[(h >> 4) & 15]);
	}
	buf_char(b, ' ');
	buf_int(b, (int64_t) number);
	if (r->name_version)
	{
		buf_lit(b, " v");
		buf_int(b, r->name_version);
	}
}

void
render_email(buf *b, const data_type *t, size_t number)
{
	const record *r = &t->records[number - 1];

	buf_str(b, t->name);
	buf_int(b, (int64_t) number);
	if (r->email_version)
	{
		buf_lit(b, "+v");
		buf_int(b, r->email_version);
	}
	buf_char(b, '@');
	buf_str(b, domains[number % 3]);
}

/* The numbers of one or two groups; none if there are no groups. */
int
render_groups(const data_type *t, size_t number, size_t group[2])
{
	const data_type *groups = data_find("group");
	uint64_t		 h;

	if (groups == NULL || groups->count == 0)
		return 0;
	h = mix(render_hash(t, number) ^ 0x96 ^
			((uint64_t) t->records[number - 1].group_version << 32));
	group[0] = h % groups->count + 1;
	if (((h >> 40) & 1) == 0 || groups->count < 2)
		return 1;
	group[1] = (group[0] + (h >> 41) % (groups->count - 1)) % groups->count + 1;
	return 2;
}

bool
record_is_member(const data_type *t, size_t number, size_t group)
{
	size_t of[2];
	int	   n = render_groups(t, number, of);

	return (n > 0 && of[0] == group) || (n > 1 && of[1] == group);
}

static void
put_groups(buf *b, const data_type *t, size_t number)
{
	const data_type *groups = data_find("group");
	size_t			 of[2];
	int				 n = render_groups(t, number, of);

	for (int i = 0; i < n; i++)
	{
		buf_str(b, i ? "\",\"" : "\"");
		render_id(b, groups, of[i]);
	}
	if (n > 0)
		buf_char(b, '"');
}

static void
put_score(buf *b, const data_type *t, size_t number)
{
	uint64_t v = mix(render_hash(t, number) ^ t->records[number - 1].version);

	buf_lit(b, ",\"score\":");
	buf_int(b, (int64_t) (v & 7));
	buf_char(b, '.');
	buf_pad_int(b, (v >> 16) % 100, 2);
	buf_int(b, (int64_t) (1 + (v >> 32) % 9));
}

static void
put_user_attributes(buf *b, const data_type *t, size_t number)
{
	const record	  *r = &t->records[number - 1];
	uint64_t		   h = render_hash(t, number);
	uint64_t		   v = mix(h ^ r->version);
	const char *const *city = cities[(h >> 12) & 7];

	buf_lit(b, "\"department\":\"");
	buf_str(b, departments[(v >> 8) & 7]);
	buf_lit(b, "\",\"title\":\"Specialist ");
	buf_int(b, (int64_t) (1 + (h >> 16) % 9));
	buf_lit(b, "\",\"employeeId\":\"E");
	buf_pad_int(b, number, 7);
	buf_lit(b, "\",\"issuer\":\"https://idp.example.org/realms/main\",\"active\":");
	buf_str(b, (h >> 20) % 20 ? "true" : "false");
	buf_lit(b, ",\"loginCount\":");
	buf_int(b, (int64_t) ((h >> 24) % 1000 + r->version));
	put_score(b, t, number);
	buf_lit(b, ",\"address\":{\"city\":\"");
	buf_str(b, city[0]);
	buf_lit(b, "\",\"zip\":\"");
	buf_str(b, city[1]);
	buf_lit(b, "\"},\"tags\":[\"vpn\",\"mail\"],\"groups\":[");
	put_groups(b, t, number);
	buf_lit(b, "],\"locale\":\"");
	buf_str(b, locales[(h >> 32) & 3]);
	buf_lit(b, "\",\"startDate\":\"");
	buf_int(b, (int64_t) (2005 + (h >> 34) % 20));
	buf_char(b, '-');
	buf_pad_int(b, 1 + (h >> 40) % 12, 2);
	buf_char(b, '-');
	buf_pad_int(b, 1 + (h >> 44) % 28, 2);
	buf_char(b, '"');
}

static void
put_other_attributes(buf *b, const data_type *t, size_t number)
{
	const record *r = &t->records[number - 1];
	uint64_t	  h = render_hash(t, number);

	buf_lit(b, "\"description\":\"");
	buf_str(b, departments[h & 7]);
	buf_lit(b, " team, revision ");
	buf_int(b, r->version);
	buf_lit(b, "\",\"memberCount\":");
	buf_int(b, (int64_t) ((h >> 8) % 500 + r->version));
	buf_lit(b, ",\"managed\":");
	buf_str(b, h & 1 ? "true" : "false");
	buf_lit(b, ",\"labels\":[\"synced\"]");
}

/*
 * Write the field from the patch, if it says anything of it.  start is what comes before the
 * value.
 */
bool
render_patched(buf *b, const patch *p, int field, const char *start)
{
	if (p == NULL)
		return false;
	if (p->drop[field])
		return true;
	if (p->json[field] == NULL)
		return false;
	if (b->p[b->n - 1] != '{')
		buf_char(b, ',');
	buf_str(b, start);
	buf_put(b, p->json[field], p->json_len[field]);
	return true;
}

static void
comma(buf *b)
{
	if (b->p[b->n - 1] != '{')
		buf_char(b, ',');
}

void
render_record(buf *b, const data_type *t, size_t number, const patch *p)
{
	const record *r = &t->records[number - 1];
	bool		  user = strcmp(t->name, "user") == 0;

	buf_room(b, 1024);
	if (p != NULL && p->whole != NULL)
	{
		buf_put(b, p->whole, p->whole_len);
		return;
	}
	if (r->whole != NULL)
	{
		buf_str(b, r->whole);
		return;
	}

	buf_char(b, '{');
	if (p != NULL && p->before != NULL)
		buf_str(b, p->before);
	if (!render_patched(b, p, FIELD_ID, "\"externalId\":"))
	{
		comma(b);
		buf_lit(b, "\"externalId\":\"");
		if (p != NULL && p->id_prefix != NULL)
			buf_str(b, p->id_prefix);
		render_id(b, t, number);
		buf_char(b, '"');
	}
	if (!render_patched(b, p, FIELD_NAME, "\"displayName\":"))
	{
		comma(b);
		buf_lit(b, "\"displayName\":\"");
		render_name(b, t, number, NAME_WHOLE);
		if (p != NULL && p->name_suffix != NULL)
			buf_put(b, p->name_suffix, p->name_suffix_len);
		buf_char(b, '"');
	}
	if (!render_patched(b, p, FIELD_EMAIL, "\"email\":"))
	{
		comma(b);
		if (user)
		{
			buf_lit(b, "\"email\":\"");
			render_email(b, t, number);
			buf_char(b, '"');
		}
		else
			buf_lit(b, "\"email\":null");
	}
	if (!render_patched(b, p, FIELD_ATTRIBUTES, "\"attributes\":"))
	{
		comma(b);
		buf_lit(b, "\"attributes\":{");
		if (user)
			put_user_attributes(b, t, number);
		else
			put_other_attributes(b, t, number);
		if (p != NULL && p->more != NULL)
			buf_put(b, p->more, p->more_len);
		buf_char(b, '}');
	}
	buf_char(b, '}');
}

/*
 * Only what has ever changed of the record, besides its id: a partial record
 * of a delta listing.  before is JSON members that come first.
 */
void
render_changed(buf *b, const data_type *t, size_t number, const char *before)
{
	const record *r = &t->records[number - 1];
	bool		  user = strcmp(t->name, "user") == 0;

	buf_char(b, '{');
	buf_str(b, before);
	comma(b);
	buf_lit(b, "\"externalId\":\"");
	render_id(b, t, number);
	buf_char(b, '"');
	if (r->name_version)
	{
		buf_lit(b, ",\"displayName\":\"");
		render_name(b, t, number, NAME_WHOLE);
		buf_char(b, '"');
	}
	if (r->email_version && user)
	{
		buf_lit(b, ",\"email\":\"");
		render_email(b, t, number);
		buf_char(b, '"');
	}
	if (user && (r->version || r->group_version))
	{
		uint64_t h = render_hash(t, number);

		buf_lit(b, ",\"attributes\":{");
		if (r->version)
		{
			buf_lit(b, "\"department\":\"");
			buf_str(b, render_department(t, number));
			buf_lit(b, "\",\"loginCount\":");
			buf_int(b, (int64_t) ((h >> 24) % 1000 + r->version));
			put_score(b, t, number);
		}
		if (r->group_version)
		{
			comma(b);
			buf_lit(b, "\"groups\":[");
			put_groups(b, t, number);
			buf_char(b, ']');
		}
		buf_char(b, '}');
	}
	else if (r->version)
	{
		buf_lit(b, ",\"attributes\":{");
		put_other_attributes(b, t, number);
		buf_char(b, '}');
	}
	buf_char(b, '}');
}

/*
 * changes.h
 *	  What is noted when records change, and who keeps a connector.  See record/changes.c.
 */
#ifndef FLOHSYNC_RECORD_CHANGES_H
#define FLOHSYNC_RECORD_CHANGES_H

/* What can become of a record. */
typedef enum ChangeKind
{
	CHANGE_ADDED,
	CHANGE_UPDATED,
	CHANGE_RESTORED,
	CHANGE_STALED,
	CHANGE_REMOVED,
	CHANGE_KINDS
} ChangeKind;

/* Records of one connector and type that a transaction has changed. */
typedef struct RecordChanges
{
	Datum connector;		 /* uuid */
	Datum resource_type;	 /* text */
	Datum ids[CHANGE_KINDS]; /* uuid[]; 0: none */
	/* text[], what the cache has to forget; 0: nothing, or there is no cache. */
	Datum external_ids;
	bool  all_external_ids; /* it has to forget the whole type instead */
	/*
	 * Post-sync is to find them in record_change: no page names them, and nobody follows at
	 * once.
	 */
	bool queue;
	Datum
		dirty; /* bytea: their record_no, as of ledger.c; 0: no page is read in full because of them */
	int64 pass; /* the full pass that has changed them, 0: something else */
} RecordChanges;

extern ChangeKind changes_kind(const char *name);
extern void		  changes_note(const RecordChanges *changes);
extern void		  changes_hold_connector(Datum connector);

#endif /* FLOHSYNC_RECORD_CHANGES_H */

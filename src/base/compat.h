/*
 * compat.h
 *	  Every PG_VERSION_NUM test of the extension.  Code is written for the
 *	  newest API; this file makes older servers understand it.  PostgreSQL 15
 *	  is the oldest.
 */
#ifndef FLOHSYNC_COMPAT_H
#define FLOHSYNC_COMPAT_H

#include "postgres.h"

#if PG_VERSION_NUM < 150000
#error "flohsync needs PostgreSQL 15 or newer"
#endif

#include "access/htup_details.h"
#include "access/tableam.h"
#include "access/transam.h"
#include "access/xlog.h"
#include "catalog/pg_database.h"
#include "catalog/pg_proc.h"
#include "miscadmin.h"
#include "nodes/tidbitmap.h"
#include "pgstat.h"
#include "storage/latch.h"
#include "storage/proc.h"
#include "utils/acl.h"
#include "utils/guc.h"
#include "utils/wait_event.h"

#if PG_VERSION_NUM >= 160000
#include "varatt.h"
#endif

#if PG_VERSION_NUM >= 180000
#include "storage/waiteventset.h"
#define FLOHSYNC_NORETURN(decl) pg_noreturn decl
#else
#define FLOHSYNC_NORETURN(decl) decl pg_attribute_noreturn()
#endif

#if PG_VERSION_NUM >= 170000
#define COMPAT_TRANSACTION_TIMEOUT 1
#endif

/* The first argument of CreateWaitEventSet became a resource owner in 17. */
#if PG_VERSION_NUM >= 170000
#define compat_create_wait_event_set(n) CreateWaitEventSet(NULL, (n))
#define compat_wait_event(name)			WaitEventExtensionNew(name)
#define compat_my_proc_number()			((int) MyProcNumber)
#else
#define compat_create_wait_event_set(n) CreateWaitEventSet(CurrentMemoryContext, (n))
#define compat_wait_event(name)			((void) (name), PG_WAIT_EXTENSION)
#define compat_my_proc_number()			(MyProc->pgprocno)
#endif

/*
 * How many transactions that wrote something have ended, of any database.  As long as that stays
 * the same, no snapshot sees anything new.
 */
#if PG_VERSION_NUM >= 170000
#define compat_xact_completion_count() (TransamVariables->xactCompletionCount)
#else
#define compat_xact_completion_count() (ShmemVariableCache->xactCompletionCount)
#endif

/* Time line that the server writes; good on a primary only. */
#define compat_timeline() GetWALInsertionTimeLine()

/* A process has its number in a structure of its own since 17. */
#if PG_VERSION_NUM >= 170000
#define compat_local_transaction() (MyProc->vxid.lxid)
#else
#define compat_local_transaction() (MyProc->lxid)
#endif

/* One function checks the owner of any object since 16. */
#if PG_VERSION_NUM >= 160000
#define compat_owns_database(d, r) object_ownercheck(DatabaseRelationId, (d), (r))
#else
#define compat_owns_database(d, r) pg_database_ownercheck((d), (r))
#endif

#if PG_VERSION_NUM >= 160000
#define compat_may_connect(d, r) \
	(object_aclcheck(DatabaseRelationId, (d), (r), ACL_CONNECT) == ACLCHECK_OK)
#else
#define compat_may_connect(d, r) (pg_database_aclcheck((d), (r), ACL_CONNECT) == ACLCHECK_OK)
#endif

#if PG_VERSION_NUM >= 160000
#define compat_may_execute(f, r) \
	(object_aclcheck(ProcedureRelationId, (f), (r), ACL_EXECUTE) == ACLCHECK_OK)
#else
#define compat_may_execute(f, r) (pg_proc_aclcheck((f), (r), ACL_EXECUTE) == ACLCHECK_OK)
#endif

/*
 * The function came with minor releases; before, a setting told, as it did at the start of
 * the session.
 */
#if (PG_VERSION_NUM >= 150009 && PG_VERSION_NUM < 160000) || \
	(PG_VERSION_NUM >= 160005 && PG_VERSION_NUM < 170000) || PG_VERSION_NUM >= 170001
#define compat_session_is_superuser() GetSessionUserIsSuperuser()
#else
#define compat_session_is_superuser() \
	(strcmp(GetConfigOption("is_superuser", false, false), "on") == 0)
#endif

/* An index scan can be instrumented since 18. */
#if PG_VERSION_NUM >= 180000
#define compat_index_beginscan(t, i, s, n) index_beginscan((t), (i), (s), NULL, (n), 0)
#else
#define compat_index_beginscan(t, i, s, n) index_beginscan((t), (i), (s), (n), 0)
#endif

#if PG_VERSION_NUM >= 180000
#define compat_index_beginscan_bitmap(i, s, n) index_beginscan_bitmap((i), (s), NULL, (n))
#else
#define compat_index_beginscan_bitmap(i, s, n) index_beginscan_bitmap((i), (s), (n))
#endif

/* The trees of a GIN index are read without a snapshot since 17. */
#if PG_VERSION_NUM >= 170000
#define compat_gin_find_leaf(t)		   ginFindLeafPage((t), true, false)
#define compat_gin_begin_tree(t, i, r) ginScanBeginPostingTree((t), (i), (r))
#else
#define compat_gin_find_leaf(t)		   ginFindLeafPage((t), true, false, NULL)
#define compat_gin_begin_tree(t, i, r) ginScanBeginPostingTree((t), (i), (r), NULL)
#endif

/* The rows of a bitmap are taken out page by page, in two steps since 18. */
#if PG_VERSION_NUM >= 180000
typedef TBMPrivateIterator CompatBitmapIterator;
#define compat_bitmap_begin(b) tbm_begin_private_iterate(b)
#define compat_bitmap_end(i)   tbm_end_private_iterate(i)
#else
typedef TBMIterator CompatBitmapIterator;
#define compat_bitmap_begin(b) tbm_begin_iterate(b)
#define compat_bitmap_end(i)   tbm_end_iterate(i)
#endif

/* The rows of the next page: n is -1 if only the page is known, of which all rows count. */
static inline bool
compat_bitmap_next(CompatBitmapIterator *iterator, BlockNumber *block, OffsetNumber *offsets,
				   int *n)
{
#if PG_VERSION_NUM >= 180000
	TBMIterateResult page;

	if (!tbm_private_iterate(iterator, &page))
		return false;
	*block = page.blockno;
	*n = page.lossy ? -1 : tbm_extract_page_tuple(&page, offsets, MaxHeapTuplesPerPage);
#else
	TBMIterateResult *page = tbm_iterate(iterator);

	if (page == NULL)
		return false;
	*block = page->blockno;
	*n = page->ntuples;
	if (page->ntuples > 0)
		memcpy(offsets, page->offsets, sizeof(OffsetNumber) * page->ntuples);
#endif
	return true;
}

/* Since 18 the executor has no parameter for running to the end. */
#if PG_VERSION_NUM >= 180000
#define COMPAT_EXECUTOR_RUN_PARAMETERS QueryDesc *queryDesc, ScanDirection direction, uint64 count
#define COMPAT_EXECUTOR_RUN_ARGUMENTS  queryDesc, direction, count
#else
#define COMPAT_EXECUTOR_RUN_PARAMETERS \
	QueryDesc *queryDesc, ScanDirection direction, uint64 count, bool execute_once
#define COMPAT_EXECUTOR_RUN_ARGUMENTS queryDesc, direction, count, execute_once
#endif

/* Whether only summarizing indexes are meant, a parameter since 16, is never of use here. */
#if PG_VERSION_NUM >= 160000
#define compat_insert_index_tuples(t, s, e) \
	ExecInsertIndexTuples((t), (s), (e), false, false, NULL, NIL, false)
#else
#define compat_insert_index_tuples(t, s, e) \
	ExecInsertIndexTuples((t), (s), (e), false, false, NULL, NIL)
#endif

/* What an update tells of indexes is more than whether all or none of them, since 16. */
#if PG_VERSION_NUM >= 160000
typedef TU_UpdateIndexes CompatUpdatedIndexes;
#define compat_updates_indexes(u) ((u) != TU_None)
#define compat_update_index_tuples(t, s, e, u) \
	ExecInsertIndexTuples((t), (s), (e), true, false, NULL, NIL, (u) == TU_Summarizing)
#else
typedef bool CompatUpdatedIndexes;
#define compat_updates_indexes(u) (u)
#define compat_update_index_tuples(t, s, e, u) \
	ExecInsertIndexTuples((t), (s), (e), true, false, NULL, NIL)
#endif

/* For a row on trial: *conflict is set when another of its key is there. */
#if PG_VERSION_NUM >= 160000
#define compat_insert_on_trial(t, s, e, conflict) \
	ExecInsertIndexTuples((t), (s), (e), false, true, (conflict), NIL, false)
#else
#define compat_insert_on_trial(t, s, e, conflict) \
	ExecInsertIndexTuples((t), (s), (e), false, true, (conflict), NIL)
#endif

/* Which version of the row is meant, and there is none yet, is a parameter since 18. */
#if PG_VERSION_NUM >= 180000
#define compat_check_index_constraints(t, s, e, other) \
	ExecCheckIndexConstraints((t), (s), (e), (other), &(ItemPointerData){{0, 0}, 0}, NIL)
#else
#define compat_check_index_constraints(t, s, e, other) \
	ExecCheckIndexConstraints((t), (s), (e), (other), NIL)
#endif

#endif /* FLOHSYNC_COMPAT_H */

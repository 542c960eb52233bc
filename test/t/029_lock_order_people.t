# The order of locks, where a run's worker waits in post-sync and as it purges: see LockOrder.pm.
use strict;
use warnings;

use LockOrder;

LockOrder::run(qw(match create deactivate map purge));

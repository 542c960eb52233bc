--:include upgrade/begin.sql

--:include upgrade/end.sql

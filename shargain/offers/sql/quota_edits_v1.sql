-- Writes every edit of a quota down, by whatever road it comes: who, when, why, before and after. Who and why are
-- what the transaction has said in quota_redis.who and quota_redis.why (see quota_redis.django.editing); where it
-- has said nothing, the session's role. Counts are no edits: sync does not name the trigger's columns.
--
-- The function runs with its owner's rights, so that a role that edits quotas needs none on the history. It writes to
-- the schema of the quotas and looks nowhere else, for a caller could put a table of the same name in its path.
CREATE OR REPLACE FUNCTION shargain_record_edit_v1() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    v_before jsonb := CASE WHEN TG_OP <> 'INSERT' THEN to_jsonb(OLD) - 'id' - 'used_offers_count' END;
    v_after jsonb := CASE WHEN TG_OP <> 'DELETE' THEN to_jsonb(NEW) - 'id' - 'used_offers_count' END;
BEGIN
    IF v_before IS NOT DISTINCT FROM v_after THEN
        RETURN NULL;
    END IF;
    EXECUTE format(
        'INSERT INTO %I.offers_quotaedit (quota_id, target_id, at, kind, who, why, before, after)
         VALUES ($1, $2, clock_timestamp(), $3, $4, $5, $6, $7)', TG_TABLE_SCHEMA)
    USING coalesce(NEW.id, OLD.id), coalesce(NEW.target_id, OLD.target_id),
          CASE TG_OP WHEN 'INSERT' THEN 'created' WHEN 'DELETE' THEN 'deleted' ELSE 'changed' END,
          left(coalesce(nullif(current_setting('quota_redis.who', true), ''), 'sql ' || session_user), 200),
          left(coalesce(current_setting('quota_redis.why', true), ''), 1000),
          coalesce(v_before, '{}'), coalesce(v_after, '{}');
    RETURN NULL;
END $$;

CREATE OR REPLACE TRIGGER offers_offerquota_edit_v1
AFTER INSERT OR DELETE OR UPDATE OF target_id, max_offers_per_period, period_start, period_end
ON offers_offerquota FOR EACH ROW EXECUTE FUNCTION shargain_record_edit_v1();

-- What was written down stays, for the tables' owner too.
CREATE OR REPLACE FUNCTION shargain_keep_edits_v1() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'the history of edits cannot be changed' USING ERRCODE = 'SH002';
END $$;

CREATE OR REPLACE TRIGGER offers_quotaedit_keep_v1
BEFORE UPDATE OR DELETE ON offers_quotaedit FOR EACH STATEMENT EXECUTE FUNCTION shargain_keep_edits_v1();

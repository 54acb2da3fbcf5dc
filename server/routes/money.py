"""Money by HTTP: what a request would cost, what was spent, and budgets."""

import datetime as dt

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from crdt.json import Json
from jobs.budgets import Budget, Period, Scope, Used
from jobs.run import MICROS
from jobs.spending import Question, Report, Total
from providers.prices import Estimate
from server.access import Role, caller_of, require_admin
from server.door import BATCH_LIMIT_BYTES, check, read_body, read_json, read_query
from server.errors import BudgetNotFound, Forbidden, InBatch
from server.models import BatchRequest, BudgetBody, BudgetName, BudgetQuery, CostsQuery, StartImageJobRequest
from server.operations import Answer, Operation
from server.orders import Order
from server.records import BudgetList, BudgetRecord, CostsRecord, EstimateRecord
from server.routes.runs import order_options
from server.services import services_of

_BUDGETS = "/api/budgets"


async def estimate_cost(request: Request) -> Response:
    """Tell what a job, or a batch of them, would cost, and start nothing."""
    value = await read_json(request, BATCH_LIMIT_BYTES)
    batch = isinstance(value, dict) and "requests" in value
    bodies = check(BatchRequest, value).requests if batch else [check(StartImageJobRequest, value)]
    orders = services_of(request).orders
    prices: list[tuple[str, str, Estimate | None]] = []
    for index, body in enumerate(bodies):
        try:
            caller_of(request).require_workflow(body.workflow_id)
            order = Order(workflow_id=body.workflow_id, node_id=body.node_id, **order_options(request, body))
            asked = await orders.prepare(order)
        except Exception as error:
            if batch:
                raise InBatch(index, error) from error
            raise
        prices.append((asked.provider, asked.model, orders.price(asked)))
    known = [price.usd_micros for _, _, price in prices if price is not None]
    lines: list[Json] = [_price(*price) for price in prices]
    total = sum(known) / MICROS if known else None
    return JSONResponse({"estimateUsd": total, "unknown": len(prices) - len(known), "prices": lines})


async def read_costs(request: Request) -> Response:
    """Tell what was spent, on a canvas, by a person, at a provider, or by everybody."""
    query = read_query(request, CostsQuery)
    caller = caller_of(request)
    if query.workflow_id is not None:
        caller.require_workflow(query.workflow_id)
    elif query.user is None or query.user != caller.id:
        require_admin(request)
    elif caller.workflows is not None:
        raise Forbidden("name a workflowId: your token does not reach every workflow")
    question = Question(query.workflow_id, query.user, query.provider, query.since, query.until)
    return JSONResponse(_report(await services_of(request).spending.report(question)))


async def list_budgets(request: Request) -> Response:
    """List budgets with what is used of them: all of them, or those of one workflow."""
    query = read_query(request, BudgetQuery)
    if query.workflow_id is not None:
        caller_of(request).require_workflow(query.workflow_id)
    else:
        require_admin(request)
    found = await services_of(request).spending.budgets(query.workflow_id)
    return JSONResponse({"budgets": [_budget(budget, used) for budget, used in found]})


async def set_budget(request: Request) -> Response:
    """Set a budget, in place of the one there was."""
    body = await read_body(request, BudgetBody)
    by = caller_of(request).id or None
    limit = round(body.limit_usd * MICROS)
    budget = Budget(Scope(body.scope), body.key, Period(body.period), limit, by)
    return JSONResponse(_budget(budget, await services_of(request).spending.limit(budget)))


async def delete_budget(request: Request) -> Response:
    """Take a budget away."""
    named = read_query(request, BudgetName)
    if not await services_of(request).spending.unlimit(Scope(named.scope), named.key, Period(named.period)):
        raise BudgetNotFound(named.scope, named.key, named.period)
    return Response(status_code=204)


def _price(provider: str, model: str, price: Estimate | None) -> dict[str, Json]:
    as_of = price.as_of.isoformat() if price is not None and price.as_of is not None else None
    usd = None if price is None else price.usd_micros / MICROS
    return {"provider": provider, "model": model, "usd": usd, "asOf": as_of}


def _budget(budget: Budget, used: Used) -> dict[str, Json]:
    left = budget.limit_usd_micros - used.spent_usd_micros - used.reserved_usd_micros
    return {
        "scope": budget.scope.value,
        "key": budget.key,
        "period": budget.period.value,
        "limitUsd": budget.limit_usd_micros / MICROS,
        "spentUsd": used.spent_usd_micros / MICROS,
        "reservedUsd": used.reserved_usd_micros / MICROS,
        "leftUsd": max(0, left) / MICROS,
        "by": budget.by,
    }


def _report(report: Report) -> dict[str, Json]:
    makers: list[Json] = [
        {"provider": provider, "model": model, **_total(total)} for (provider, model), total in report.makers.items()
    ]
    days: list[Json] = [{"day": _iso(day), **_total(total)} for day, total in report.days.items()]
    reserved = report.reserved_usd_micros / MICROS
    return {**_total(report.total), "reservedUsd": reserved, "byModel": makers, "byDay": days}


def _total(total: Total) -> dict[str, Json]:
    return {
        "costUsd": total.usd_micros / MICROS,
        "bills": total.bills,
        "ambiguousUsd": total.ambiguous_usd_micros / MICROS,
        "ambiguousBills": total.ambiguous_bills,
    }


def _iso(day: dt.date) -> str:
    return day.isoformat()


OPERATIONS = (
    Operation(
        "POST",
        "/api/images/estimate",
        estimate_cost,
        "Tell what a job, or a batch of 1 to 1000, would cost; starts nothing",
        "money",
        {200: Answer("The estimate.", EstimateRecord)},
        bodies=(StartImageJobRequest, BatchRequest),
        problems=(404,),
    ),
    Operation(
        "GET",
        "/api/costs",
        read_costs,
        "Tell what was spent; a workflow's to those who reach it, one's own, and everything else to admins",
        "money",
        {200: Answer("What was spent.", CostsRecord)},
        query=CostsQuery,
        problems=(422,),
    ),
    Operation(
        "GET",
        _BUDGETS,
        list_budgets,
        "List budgets; those of a workflow to those who reach it, all of them to admins",
        "money",
        {200: Answer("The budgets, and what is used of them.", BudgetList)},
        query=BudgetQuery,
        problems=(422,),
    ),
    Operation(
        "PUT",
        _BUDGETS,
        set_budget,
        "Set a budget",
        "money",
        {200: Answer("The budget, and what is used of it already.", BudgetRecord)},
        bodies=(BudgetBody,),
        role=Role.ADMIN,
        everywhere=True,
        steering=True,
    ),
    Operation(
        "DELETE",
        _BUDGETS,
        delete_budget,
        "Take a budget away",
        "money",
        {204: Answer("There is none any more.")},
        query=BudgetName,
        problems=(404, 422),
        role=Role.ADMIN,
        everywhere=True,
        steering=True,
    ),
)

"""Answer a question about a customer from PostgreSQL, and let no bank account reach the model."""

from psycopg_pool import AsyncConnectionPool
from pydantic import BaseModel
from services import EnvSecrets, Patterns, RegexPatterns, SecretManager, open_pool

from flujo.core import (
    Allow,
    Deny,
    Flujo,
    GuardModelCall,
    Message,
    ModelRequest,
    ModelResponse,
    ModelUsage,
    Price,
    Resource,
    Resources,
    RunContext,
    hookimpl,
    step,
)


class AppResources(Resources):
    """What runs are given: opened when something first needs it, closed in reverse order."""

    secrets: SecretManager = Resource(EnvSecrets, scope="app")
    db: AsyncConnectionPool = Resource(open_pool, scope="app")
    patterns: Patterns = Resource(RegexPatterns, scope="app")


class NoAccounts:
    """A plugin: a model is not asked about what the patterns find. It gets them as a step would."""

    @hookimpl
    def guard_model_call(self, payload: GuardModelCall, patterns: Patterns) -> Allow | Deny:
        """Look at what is about to be sent."""
        found = [name for message in payload.request.messages for name in patterns.find(message.content)]
        return Deny(f"the request holds {', '.join(found)}") if found else Allow()


class Customer(BaseModel):
    """A row."""

    name: str
    note: str


@step
async def find(name: str, db: AsyncConnectionPool) -> Customer:
    """Look the customer up."""
    async with db.connection() as connection:
        cursor = await connection.execute("SELECT name, note FROM customers WHERE name = %s", (name,))
        row = await cursor.fetchone()
    if row is None:
        raise LookupError("no customer has this name")
    return Customer(name=row[0], note=row[1])


@step
async def describe(customer: Customer, ctx: RunContext) -> str:
    """Ask the model. Here it runs in process and costs nothing: it repeats what it is told."""

    async def send(request: ModelRequest) -> ModelResponse:
        text = request.messages[-1].content
        return ModelResponse(content=text, usage=ModelUsage(input_tokens=len(text), output_tokens=len(text)))

    request = ModelRequest(model="echo", messages=(Message(role="user", content=customer.note),))
    return (await ctx.call_model(request, send, price=Price())).content


pipeline = Flujo(find >> describe, resources=AppResources(), plugins=[NoAccounts()])
